"""A quantized table: gathered from and multiplied with, stored once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.core.errors import EdgelrError
from edgelr.core.vocabulary import WeightPrecision
from edgelr.graph.quantize_table import QuantizeTable
from edgelr.graph.save import load_graph, save_graph, weight_bytes
from tests.helpers.foreign_graphs import Builder, run
from tests.helpers.single_node import NEWEST

VOCABULARY, HIDDEN = 70, 64
IDS = np.array([[0, 5, 69], [7, 7, 1]])


def graph(path: Path, head: str) -> tuple[ir.Model, np.ndarray]:
    """A table that is gathered from, and read by ``head`` where that is not empty."""
    build = Builder()
    table = build.weight("table", VOCABULARY, HIDDEN)
    build.node("Gather", ["table", "ids"], "x", name="gather")
    outputs = ["x"]
    if head == "FusedMatMul":
        build.node(head, ["x", "table"], "y", name="head", domain="com.microsoft", transB=1)
        outputs.append("y")
    elif head:
        build.node(head, ["x", "table"], "y", name="head")
        outputs.append("y")
    build.save(path, {"ids": [2, 3]}, outputs, types={"ids": TensorProto.INT64})
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return ir.from_proto(model), table


def quantized(path: Path, precision: WeightPrecision, head: str) -> tuple[Path, Blocks]:
    model, table = graph(path, head)
    stored = quantize(np.ascontiguousarray(table.T), precision)
    QuantizeTable("embed", table, stored, 1)(model)
    save_graph(model, path, NEWEST, NEWEST, check=False)
    return path, stored


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("head", ["", "FusedMatMul"])
def test_rows_and_logits_are_those_of_the_rounded_table(
    tmp_path: Path, precision: WeightPrecision, head: str
) -> None:
    path, stored = quantized(tmp_path / "table.onnx", precision, head)
    rounded = stored.dense().T  # (vocabulary, hidden)
    rows, *logits = run(path, ids=IDS)
    np.testing.assert_allclose(rows, rounded[IDS], atol=1e-5)
    for found in logits:
        np.testing.assert_allclose(found, rounded[IDS] @ rounded.T, atol=1e-3)
    assert len(logits) == bool(head)


def test_a_tied_table_is_stored_once_and_its_float_weights_are_gone(tmp_path: Path) -> None:
    path, stored = quantized(tmp_path / "table.onnx", "int4", "FusedMatMul")
    model = load_graph(path)
    numbers = stored.packed.nbytes + stored.scales.nbytes + stored.zero_points.nbytes
    assert numbers <= weight_bytes(model) < numbers + 64  # and the shapes of two Reshapes
    operators = Counter(node.op_type for node in model.graph)
    assert operators == {"GatherBlockQuantized": 1, "Reshape": 2, "MatMulNBits": 1}


def test_another_reader_is_named(tmp_path: Path) -> None:
    model, table = graph(tmp_path / "table.onnx", "")
    other = ir.node("Neg", [model.graph.initializers["table"]], name="negative")
    model.graph.append(other)
    stored = quantize(np.ascontiguousarray(table.T), "int8")
    with pytest.raises(EdgelrError, match="The table embed is read by a Neg"):
        QuantizeTable("embed", table, stored, 1)(model)


def test_a_table_of_another_model_is_refused(tmp_path: Path) -> None:
    model, table = graph(tmp_path / "table.onnx", "")
    stored = quantize(np.ascontiguousarray(table.T), "int8")
    with pytest.raises(EdgelrError, match="no table of embeddings that equals embed"):
        QuantizeTable("embed", table + 1, stored, 1)(model)
