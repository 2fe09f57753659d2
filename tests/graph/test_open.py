"""Foreign graphs are opened with their constants in one place, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from edgelr.core.errors import InputError
from edgelr.graph.linears import find_linears
from edgelr.graph.open import external_files, open_foreign
from tests.helpers.foreign_graphs import Builder, mlp


def names(source: Path) -> list[str]:
    return [linear.site.name for linear in find_linears(open_foreign(source)).found]


def test_a_tied_table_is_not_stored_twice(tmp_path: Path) -> None:
    build = Builder()
    build.weight("table", 20, 12)
    build.node("Gather", ["table", "ids"], "x")
    build.node("Transpose", ["table"], "head")
    build.node("MatMul", ["x", "head"], "y", name="head")
    types = {"ids": TensorProto.INT64}
    source = build.save(tmp_path / "tied.onnx", {"ids": [3]}, ["y"], types=types)
    assert names(source) == []
    assert len(open_foreign(source).graph.initializers) == 1


def test_initializers_that_are_also_inputs_are_found(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "y", name="only")
    source = build.save(tmp_path / "inputs.onnx", {"x": [3, 12], "w": [12, 20]}, ["y"])
    assert names(source) == ["only"]


def test_external_weights_that_are_missing_or_linked_are_refused(tmp_path: Path) -> None:
    source = mlp(tmp_path / "mlp.onnx", external=True)
    (data,) = external_files(source)
    other = tmp_path / "other"
    other.mkdir()
    moved = data.rename(other / data.name)
    with pytest.raises(InputError, match="does not exist"):
        external_files(source)
    data.symlink_to(moved)
    with pytest.raises(InputError, match="is a link"):
        external_files(source)
    data.unlink()
    data.hardlink_to(moved)
    with pytest.raises(InputError, match="is a link"):
        external_files(source)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_foreign(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph at all")
    with pytest.raises(InputError, match="cannot be read as an ONNX graph"):
        open_foreign(broken)
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="holds no nodes"):
        open_foreign(broken)
