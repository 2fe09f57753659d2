"""Passes over graphs tell whether they changed anything, and a second run changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx_ir.passes import InPlacePass

from edgelr.graph.cleanup import RenameNorms, ShareTiedHead, UntransposeTable
from edgelr.graph.constants import FoldConstants
from edgelr.graph.float16 import ToFloat16
from edgelr.graph.split_tied_table import JoinTiedTable, SplitTiedTable
from tests.helpers.foreign_graphs import Builder, mlp

IDS = {"ids": TensorProto.INT64}


def norm(path: Path) -> Path:
    build = Builder()
    build.weight("scale", 12)
    build.node("SimplifiedLayerNormalization", ["x", "scale"], "y", epsilon=1e-5)
    return build.save(path, {"x": [3, 12]}, ["y"])


def transposed_table(path: Path) -> Path:
    """As onnxruntime-genai's builder writes it: the head's weight is what is stored."""
    build = Builder()
    build.weight("head", 12, 20)
    build.node("Transpose", ["head"], "table", perm=[1, 0])
    build.node("Gather", ["table", "ids"], "x")
    build.node("MatMul", ["x", "head"], "y")
    return build.save(path, {"ids": [3]}, ["y"], types=IDS)


def copied_table(path: Path) -> Path:
    """As tracing writes it: table and head are stored, each as it is read."""
    build = Builder()
    table = build.weight("table", 20, 12)
    build.node("Gather", ["table", "ids"], "x")
    build.weight("head", 12, 20)
    build.weights[-1].raw_data = np.ascontiguousarray(table.T).tobytes()
    build.node("MatMul", ["x", "head"], "y")
    return build.save(path, {"ids": [3]}, ["y"], types=IDS)


def tied(path: Path) -> Path:
    build = Builder()
    build.weight("table", 600, 64)
    build.node("Gather", ["table", "ids"], "x")
    build.node("FusedMatMul", ["x", "table"], "y", domain="com.microsoft", transB=1)
    return build.save(path, {"ids": [3]}, ["y"], types=IDS, external=True)


def split(path: Path) -> Path:
    model = ir.load(tied(path))
    SplitTiedTable(70_000)(model)
    ir.save(model, path)
    return path


def folded(path: Path) -> Path:
    build = Builder()
    build.weight("w", 20, 12)
    build.node("Transpose", ["w"], "wt")
    build.node("MatMul", ["x", "wt"], "y")
    return build.save(path, {"x": [3, 12]}, ["y"])


PASSES = [
    (RenameNorms(), norm),
    (UntransposeTable(), transposed_table),
    (ShareTiedHead(), copied_table),
    (ToFloat16(), mlp),
    (SplitTiedTable(70_000), tied),
    (JoinTiedTable(), split),
    (FoldConstants(), folded),
]


@pytest.mark.parametrize(("run", "graph"), PASSES, ids=lambda each: type(each).__name__)
def test_a_pass_tells_whether_it_changed_the_graph(
    run: InPlacePass, graph: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = ir.load(graph(tmp_path / "graph.onnx"))
    before = [node.op_type for node in model.graph]
    assert run(model).modified
    after = [node.op_type for node in model.graph]
    types = {value.dtype for value in model.graph.initializers.values()}
    assert after != before or types == {ir.DataType.FLOAT16}
    assert not run(model).modified
    assert [node.op_type for node in model.graph] == after
