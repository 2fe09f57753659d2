"""Files of weights by their headers: every shard, every shape, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgelr.core.errors import InputError
from edgelr.model.weight_headers import tensor_shapes, weight_files


def test_shapes_are_those_of_all_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((2, 3)), "b": np.zeros(5)}, path)
    assert weight_files(tmp_path) == [path]
    assert sorted(tensor_shapes(path)) == [[2, 3], [5]]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="expected a whole file of safetensors"):
        tensor_shapes(path)


def test_an_index_names_the_shards(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    (tmp_path / "1.safetensors").touch()
    with pytest.raises(InputError, match=r"lacks 1 of 2 files of weights: 2\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "2.safetensors").touch()
    assert [path.name for path in weight_files(tmp_path)] == ["1.safetensors", "2.safetensors"]
    index.write_text("[]")
    with pytest.raises(InputError, match="is no list of shards"):
        weight_files(tmp_path)
