"""What lies beside the weights: JSON, vocabularies, the first metadata of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgelr.core.errors import InputError
from edgelr.model.small_files import read_architecture, read_json, require_tokenizer


@pytest.mark.parametrize(("text", "told"), [("{", "is no JSON"), ("[1]", "holds a list")])
def test_a_file_that_holds_no_object_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=told):
        read_json(tmp_path / "config.json")


def test_every_token_needs_a_row(tmp_path: Path) -> None:
    added = [{"content": "<a>", "id": 2}, {"content": "<b>", "id": 3}]
    told = {"model": {"vocab": {"x": 0, "y": 1}}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    require_tokenizer(tmp_path, "m", 4)
    with pytest.raises(InputError, match=r"m has a token without a row .*'<b>' \(3\)\. "):
        require_tokenizer(tmp_path, "m", 3)
    with pytest.raises(InputError, match=r"m has 2 tokens without a row"):
        require_tokenizer(tmp_path, "m", 2)


def test_a_tokenizer_may_still_be_made_of_older_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tokenizer"):
        require_tokenizer(tmp_path, "m", 4, made=False)
    (tmp_path / "vocab.txt").write_text("x")
    require_tokenizer(tmp_path, "m", 4, made=False)
    with pytest.raises(InputError, match="has no tokenizer"):
        require_tokenizer(tmp_path, "m", 4)


def test_the_architecture_of_a_gguf_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "oddarch")
    writer.add_tensor("weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_architecture(tmp_path / "model.gguf") == "oddarch"
    (tmp_path / "other.gguf").write_bytes(b"GGUF" + bytes(200))
    assert read_architecture(tmp_path / "other.gguf") is None
    (tmp_path / "none.gguf").write_bytes(b"text")
    with pytest.raises(InputError, match="does not begin like a GGUF file"):
        read_architecture(tmp_path / "none.gguf")
