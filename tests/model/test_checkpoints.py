"""Plain folders: what is copied beside the weights, weights in shards, and gaps that are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

from edgelr.core.errors import InputError
from edgelr.model.checkpoints.folders import carry, quiet_transformers, require_complete
from edgelr.model.checkpoints.weights import StoredTensors, write_weights


def test_a_plain_copy_has_all_but_weights_and_adapters(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    names = ("README.md", "tokenizer.json", "1_Pooling/config.json", "2_Dense/model.safetensors")
    left = ("model.safetensors", "pytorch_model.bin", "adapter_config.json", "onnx/model.onnx")
    index = "model.safetensors.index.json"
    for name in (*names, *left, index, "2_Dense/config.json", "onnx/config.json", "config.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("from the source")
    out.mkdir()
    (out / "config.json").write_text("its own")
    carry(source, out)
    assert all((out / name).read_text() == "from the source" for name in names)
    assert not any((out / name).exists() for name in (*left, index))
    assert (out / "config.json").read_text() == "its own"


def test_weights_are_written_in_shards_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelr.model.checkpoints.weights._SHARD_BYTES", 100)
    tensors = {f"block.{index}.weight": torch.randn(3, 5) for index in range(4)}
    write_weights(tmp_path, tensors.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    stored = StoredTensors(tmp_path)
    shapes = {name: header.shape for name, header in stored.headers.items()}
    assert shapes == dict.fromkeys(tensors, (3, 5))
    assert all(torch.equal(stored.read(name), tensor) for name, tensor in tensors.items())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"weight": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-00002-of-00002.*every shard"):
        StoredTensors(tmp_path)


def test_weights_that_are_missing_are_named_with_a_way_out() -> None:
    whole = {"missing_keys": [], "mismatched_keys": []}
    require_complete(whole, "folder", has_head=True)
    gaps = {"missing_keys": ["d", "b", "c"], "mismatched_keys": [("a", (1, 2), (2, 1))]}
    with pytest.raises(InputError, match=r"folder lacks 4 weights .*: a, b, c\."):
        require_complete(gaps, "folder")
    with pytest.raises(InputError, match="or give --task feature-extraction"):
        require_complete(gaps, "folder", has_head=True)


def test_transformers_is_as_loud_afterwards_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity()

    def interrupted() -> None:
        with quiet_transformers():
            assert logging.get_verbosity() == logging.ERROR != before
            print("a bar", file=sys.stderr)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert logging.get_verbosity() == before
    assert capsys.readouterr().err == ""
