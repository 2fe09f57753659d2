"""Where models come from: factories, GGUF files and the Hub become folders, or are refused."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath

import numpy as np
import pytest

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.sources import folder_of
from tests.helpers.gguf_files import write_gguf
from tests.helpers.run_exports import batch, run_torch


def test_a_factory_is_imported_and_kept_as_a_folder(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "import transformers\n"
        "def make():\n"
        f"    source = {str(tiny_decoder.folder)!r}\n"
        "    model = transformers.AutoModelForCausalLM.from_pretrained(source)\n"
        "    return model, transformers.AutoTokenizer.from_pretrained(source)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load("my_models:make", cache)
    sys.modules.pop("my_models", None)
    assert model.folder.is_relative_to(cache.root)
    assert (model.folder / "tokenizer.json").exists()
    inputs = batch(model, 2, 9)
    np.testing.assert_array_equal(run_torch(model, *inputs), run_torch(tiny_decoder, *inputs))


def test_a_gguf_file_is_loaded(tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path) -> None:
    model = load(str(write_gguf(tiny_decoder.module, tmp_path / "tiny.gguf")), cache)
    assert model.folder.is_relative_to(cache.root)
    inputs = batch(model, 2, 9)
    expected = run_torch(tiny_decoder, *inputs)
    np.testing.assert_allclose(run_torch(model, *inputs), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/model", "is missing; expected a model folder"),
        ("./nowhere", "is missing; expected a model folder"),
        ("~/nowhere", "is missing; expected a model folder"),
        ("/nowhere/model.gguf", r"does not exist; expected a \.gguf file"),
        ("/nowhere/model.onnx", "is an ONNX graph.*Give the model that the graph was exported"),
        ("no_such_module:make", r"cannot be imported.*returns \(model, tokenizer or image"),
        ("json:no_such_factory", r"cannot be imported.*returns \(model, tokenizer or image"),
        ("platform:node", r"is str; expected \(model, tokenizer\)"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, message: str, cache: Cache) -> None:
    with pytest.raises(InputError, match=message):
        load(source, cache)


def test_a_file_that_is_no_model_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="is a file; expected a model folder"):
        load(str(tmp_path / "notes.txt"), cache)


def test_a_broken_gguf_file_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"broken\.gguf cannot be read"):
        load(str(tmp_path / "broken.gguf"), cache)


def test_an_unknown_name_is_refused_when_the_hub_has_no_such_model(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def absent(*arguments: object, **options: object) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(InputError, match="is no local folder or file, and the Hub gave no model"):
        load("nobody/nothing", cache)


def test_a_folder_is_taken_as_it_lies(tmp_path: Path, cache: Cache) -> None:
    assert folder_of(str(tmp_path), cache, None) == tmp_path
    assert not cache.root.exists()


def test_a_name_of_the_hub_brings_what_a_model_needs_and_no_pickles(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert folder_of("owner/model", cache, "v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/model", "v1")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)

    def wanted(name: str) -> bool:
        return any(PurePath(name).match(pattern) for pattern in patterns)

    needed = ("config.json", "model.safetensors", "tokenizer.model", "README.md", "chat.jinja")
    assert all(map(wanted, needed))
    assert not any(map(wanted, ("pytorch_model.bin", "model.onnx", "weights.gguf", "flax.msgpack")))
