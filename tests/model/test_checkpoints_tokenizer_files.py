"""Tokenizers become ``tokenizer.json``; what has none, or too many tokens, is refused at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers

from edgelr.core.cache import Cache
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.data.calibration import load_tokenizer
from edgelr.model.checkpoints.tokenizer_files import token_ids, with_fast_tokenizer
from edgelr.model.load import load
from tests.conftest import MakeModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "small", "boat", "##s", "river"]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A model without a tokenizer."""
    copy = tmp_path / "model"
    shutil.copytree(make_model("bert", vocab_size=160).folder, copy)
    for path in copy.glob("tokenizer*"):
        path.unlink()
    return copy


def write_words(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def test_a_list_of_words_becomes_a_tokenizer(folder: Path, cache: Cache) -> None:
    write_words(folder)
    model = load(str(folder), cache)
    found = load_tokenizer(model.folder)
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    text = "The small boats, the RIVER"
    assert found.encode(text).ids == expected(text).input_ids
    assert found.get_vocab_size() == len(WORDS)
    assert (model.folder / "vocab.txt").exists()
    assert not (folder / "tokenizer.json").exists()
    weights = model.folder / "model.safetensors"
    assert weights.resolve() == (folder / "model.safetensors").resolve()


def test_byte_pairs_in_two_files_become_a_tokenizer(
    make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    shutil.copytree(make_model("gpt2").folder, tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    tokens = ["<|endoftext|>", "t", "h", "e", "Ġ", "th", "the"]
    ids = {token: index for index, token in enumerate(tokens)}
    (tmp_path / "model/vocab.json").write_text(json.dumps(ids))
    (tmp_path / "model/merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    found = load_tokenizer(with_fast_tokenizer(tmp_path / "model", cache))
    assert found.encode("the the").ids == [6, 4, 6]


def test_a_changed_tokenizer_is_made_again(folder: Path, cache: Cache) -> None:
    write_words(folder)
    first = with_fast_tokenizer(folder, cache)
    assert with_fast_tokenizer(folder, cache) == first
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "tea"]) + "\n")
    second = with_fast_tokenizer(folder, cache)
    assert "tea" in load_tokenizer(second).get_vocab()
    assert "tea" not in load_tokenizer(first).get_vocab()


def test_a_folder_with_the_file_stays_where_it_is(
    make_model: MakeModel, cache: Cache, folder: Path
) -> None:
    whole = make_model("bert").folder
    assert with_fast_tokenizer(whole, cache) == whole
    assert with_fast_tokenizer(folder, cache) == folder
    assert not cache.root.exists()


@pytest.mark.parametrize(
    ("name", "tokenizer_class", "library"),
    [
        ("tokenizer.model", "LlamaTokenizer", "sentencepiece"),
        ("spiece.model", "T5Tokenizer", "sentencepiece"),
        ("source.spm", "MarianTokenizer", "sentencepiece"),
    ],
)
def test_a_missing_library_is_told_with_its_installation(
    name: str,
    tokenizer_class: str,
    library: str,
    folder: Path,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / name).write_bytes(b"\x0a\x05words")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    monkeypatch.setattr("edgelr.model.checkpoints.tokenizer_files.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=f"pip install {library}"):
        with_fast_tokenizer(folder, cache)


def test_files_that_are_no_tokenizer_are_refused(folder: Path, cache: Cache) -> None:
    (folder / "vocab.txt").write_text("words")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "NobodysTokenizer"}')
    (folder / "config.json").write_text('{"model_type": "nobody"}')
    with pytest.raises(InputError, match=r"no tokenizer\.json, and its other .* cannot be read"):
        with_fast_tokenizer(folder, cache)


def test_tokens_that_the_class_does_not_read_are_refused(folder: Path, cache: Cache) -> None:
    (folder / "vocab.json").write_text('{"the": 0, "boat": 1}')  # a BertTokenizer reads vocab.txt
    with pytest.raises(InputError, match=r"names 2 tokens, of which BertTokenizer.*'the' first"):
        with_fast_tokenizer(folder, cache)


def test_a_broken_vocabulary_is_refused(folder: Path, cache: Cache) -> None:
    (folder / "vocab.json").write_text("no json")
    (folder / "merges.txt").write_text("")
    with pytest.raises(InputError, match=r"vocab\.json is no JSON"):
        with_fast_tokenizer(folder, cache)


def test_a_model_of_texts_without_a_tokenizer_is_refused_before_its_weights(
    folder: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.AutoModel.from_pretrained", read)
    with pytest.raises(InputError, match=r"no tokenizer; expected tokenizer\.json.*vocab\.txt"):
        load(str(folder), cache)


@pytest.mark.parametrize("family", ["vit", "beit", "resnet"])
def test_a_model_of_images_needs_none(family: str, make_model: MakeModel) -> None:
    model = make_model(family)
    assert not (model.folder / "tokenizer.json").exists()


def test_tokens_without_a_row_are_named_with_their_ids(
    make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    shutil.copytree(make_model("bert", vocab_size=160).folder, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = 160
    tokenizer.add_tokens([f"<new{index}>" for index in range(rows + 2 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "model")
    message = r"2 tokens without a row.*> ?'? ?\(160\).*\(161\).*ids below 160.*resize_token_embed"
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "model"), cache)


def test_tokens_of_every_kind_of_vocabulary_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    added = [{"content": "<s>", "id": 7}, {"content": "b", "id": 1}]
    for vocabulary in ({"a": 0, "b": 1}, [["a", -1.5], ["b", -2.5]]):
        path.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
        assert token_ids(path) == {"a": 0, "b": 1, "<s>": 7}
