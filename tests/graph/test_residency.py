"""Weights in memory: what products copy, what is read where it lies, and that nothing is missed."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import TensorProto

from edgelr.core.bundle import Residency
from edgelr.core.vocabulary import WeightPrecision
from edgelr.device.storage import matrix_bytes, packed_bytes
from edgelr.graph.probe import write_products
from edgelr.graph.residency import precision_of, read_residencies, read_residency
from tests.helpers.foreign_graphs import Builder, mlp


def test_matrices_are_copied_and_biases_read_where_they_lie(tmp_path: Path) -> None:
    path = mlp(tmp_path / "mlp.onnx")
    matrices, biases = 4 * (48 * 80 + 80 * 80 + 32 * 80), 4 * (80 + 32)
    assert read_residency(path, "cpu") == Residency(matrices, biases)
    assert read_residency(path, "cuda") == Residency(matrices + biases, 0)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantized_count_as_their_kernels_hold_them(
    tmp_path: Path, weights: WeightPrecision
) -> None:
    path, shape = tmp_path / "products.onnx", (64, 96)
    write_products(path, *shape, weights, 2, accuracy_level=4)
    both = (shape, shape[::-1])
    packed = sum(2 * packed_bytes(each, weights) for each in both)
    assert read_residency(path, "cpu") == Residency(packed, 0, quantized=True)
    stored = sum(2 * matrix_bytes(each, weights, "float32") for each in both)
    assert read_residency(path, "cuda").bytes == stored


def test_a_table_that_is_also_multiplied_with_is_there_twice(tmp_path: Path) -> None:
    build = Builder()
    build.weight("table", 12, 12)
    build.node("Gather", ["table", "ids"], "x")
    build.node("MatMul", ["x", "table"], "h")
    build.node("MatMul", ["h", "table"], "y")
    path = build.save(tmp_path / "tied.onnx", {"ids": [3]}, ["y"], types={"ids": TensorProto.INT64})
    table = 4 * 12 * 12
    found = read_residency(path, "cpu")
    assert found == Residency(packed_bytes=2 * table, mapped_bytes=table)  # a copy for each node
    assert found.bytes == 3 * table


def test_an_encoder_counts_with_the_decoder_beside_it(tmp_path: Path) -> None:
    decoder = mlp(tmp_path / "decoder_with_past_model.onnx")
    alone = read_residency(decoder, "cpu")
    write_products(tmp_path / "encoder_model.onnx", 64, 96, "int8", 1, accuracy_level=4)
    encoder = read_residency(tmp_path / "encoder_model.onnx", "cpu")
    both = read_residencies(decoder, "cpu")
    assert both.bytes == alone.bytes + encoder.bytes
    assert (alone.quantized, both.quantized) == (False, True)
    assert read_residencies(tmp_path / "encoder_model.onnx", "cpu") == encoder


@pytest.mark.parametrize(
    ("bits", "block_size", "named"),
    [(4, 32, "int4"), (8, 32, "int8"), (4, 128, "int4_b128"), (4, 256, "int4_b128"),
     (2, 16, "int2_b64"), (8, 16, "int8")],
)  # fmt: skip
def test_a_product_is_named_by_the_layout_that_is_most_like_its_own(
    bits: int, block_size: int, named: str
) -> None:
    node = ir.node("MatMulNBits", [], {"bits": bits, "block_size": block_size})
    assert precision_of(node) == named
