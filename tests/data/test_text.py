from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core.bundle import read_tokenizer
from edgelr.core.errors import InputError
from edgelr.data.text import chunk_tokens, mask_tokens, read_text, split_sentences
from tests.conftest import SENTENCES, make_tokenizer
from tests.helpers.runtime_graphs import WORDS, encoder_model, write_bundle


def test_the_default_text_ships_with_python() -> None:
    text = read_text(None)
    assert len(text) > 100_000
    assert len(split_sentences(text, 256)) == 256


def test_texts_and_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\nTwo.")
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n\n{"text": "Two.", "id": 3}\n')
    assert read_text(tmp_path / "a.txt") == read_text(tmp_path / "a.jsonl") == "One.\nTwo."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"  \n", "holds no text"),
        ("a.txt", b"\xff\xfe\xff", "UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}', "line 2"),
        ("a.jsonl", b"[1]", "line 1"),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text(tmp_path / name)


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read"):
        read_text(tmp_path / "none.txt")


def test_chunks_are_whole_and_in_order(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write_bundle(tmp_path / "b", encoder_model()))
    tokenizer.enable_truncation(2)
    text = " ".join(WORDS[1:])
    assert chunk_tokens(text, tokenizer, 5, 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert chunk_tokens(text, tokenizer, 1, 4).tolist() == [[1, 2, 3, 4]]
    with pytest.raises(InputError, match=r"has 10 tokens.*one chunk of 11"):
        chunk_tokens(text, tokenizer, 1, 11)


def test_sentences_are_neither_headings_nor_paragraphs() -> None:
    sentence = "This sentence is long enough."
    text = f"Heading\n\n{sentence} {sentence} Short. {'x' * 500}.\n{sentence}"
    assert split_sentences(text, 10) == [sentence] * 3
    with pytest.raises(InputError, match="0 sentences"):
        split_sentences("Heading", 10)


def test_a_part_of_a_text_is_masked_the_same_in_every_run() -> None:
    tokenizer = make_tokenizer(160, ends=True)
    for text in SENTENCES:
        encoding = tokenizer.encode(text)
        masked = mask_tokens(encoding, 3)
        assert masked == mask_tokens(encoding, 3)
        places = [place for place, token in enumerate(masked) if token == 3]
        assert len(places) == round(0.15 * (len(masked) - 2))
        assert {0, len(masked) - 1}.isdisjoint(places)  # beginning and end stay
        others = [place for place in range(len(masked)) if place not in places]
        assert all(masked[place] == encoding.ids[place] for place in others)
    assert mask_tokens(tokenizer.encode("a"), 3).count(3) == 1
    assert mask_tokens(tokenizer.encode(""), 3) == [1, 2]
