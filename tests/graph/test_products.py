"""Every product with a constant that is left as it is says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from tests.helpers.foreign_graphs import Builder


def refused(source: Path) -> dict[str, str]:
    found = find_linears(open_foreign(source))
    assert found.found == ()
    return found.refused


@pytest.mark.parametrize("shape", [(12, 3, 1, 1), (12, 3, 3, 3)])
def test_convolutions_in_groups_stay(shape: tuple[int, ...], tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", *shape)
    build.node("Conv", ["x", "w"], "y", name="conv", group=4)
    path = build.save(tmp_path / "conv.onnx", {"x": [1, 12, 6, 6]}, ["y"])
    assert refused(path) == {"conv": "it is a convolution in groups"}


def test_gemm_of_a_transposed_input_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("Gemm", ["x", "w"], "y", name="gemm", transA=1)
    path = build.save(tmp_path / "gemm.onnx", {"x": [12, 5]}, ["y"])
    assert refused(path) == {"gemm": "its input is transposed (transA)"}


def test_a_weight_that_is_read_both_ways_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.node("Gemm", ["x", "w"], "h", name="there")
    build.node("Gemm", ["h", "w"], "y", name="back", transB=1)
    path = build.save(tmp_path / "both.onnx", {"x": [5, 12]}, ["y"])
    assert refused(path) == {"there": "its weight is also read transposed"}


def test_a_batch_of_matrices_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 3, 12, 20)
    build.node("MatMul", ["x", "w"], "y", name="heads")
    path = build.save(tmp_path / "heads.onnx", {"x": [3, 5, 12]}, ["y"])
    assert refused(path) == {"heads": "its weight is a batch of 3 matrices"}


def test_the_constant_of_a_gemm_may_be_the_wrong_input(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("Gemm", ["w", "x"], "y", name="gemm")
    path = build.save(tmp_path / "gemm.onnx", {"x": [20, 5]}, ["y"])
    assert refused(path) == {"gemm": "its constant is the first input of Gemm"}


def test_a_weight_that_is_an_output_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "y", name="only")
    path = build.save(tmp_path / "output.onnx", {"x": [5, 12]}, ["y", "w"])
    assert refused(path) == {"only": "its weight is an output of the graph"}


def test_a_weight_on_both_sides_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.node("MatMul", ["x", "w"], "h", name="right")
    build.node("MatMul", ["w", "h"], "y", name="left")
    path = build.save(tmp_path / "sides.onnx", {"x": [12, 12]}, ["y"])
    assert list(refused(path)) == ["right"]


def test_a_weight_that_is_computed_otherwise_stays(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.weight("v", 12, 20)
    build.node("Add", ["w", "v"], "sum")
    build.node("MatMul", ["x", "sum"], "y", name="only")
    path = build.save(tmp_path / "sum.onnx", {"x": [5, 12]}, ["y"])
    assert refused(path) == {"only": "its weight is computed by Add"}


def test_a_tied_head_stays_with_its_table(tmp_path: Path) -> None:
    build = Builder()
    build.weight("table", 20, 12)
    build.node("Transpose", ["table"], "head")
    build.node("MatMul", ["x", "head"], "h", name="head")
    build.node("Mul", ["h", "table"], "y")
    path = build.save(tmp_path / "tied.onnx", {"x": [20, 12]}, ["y"])
    assert refused(path) == {"head": "its weight is also read by Mul"}


def test_products_of_integers_are_named(tmp_path: Path) -> None:
    build = Builder()
    build.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    build.weights.append(numpy_helper.from_array(np.ones((12, 20), np.int8), "w"))
    build.node("MatMulInteger", ["q", "w", "z"], "i", name="integers")
    build.node("Cast", ["i"], "y", to=1)
    path = build.save(tmp_path / "integers.onnx", {"x": [5, 12]}, ["y"])
    assert refused(path) == {"integers": "its operator is MatMulInteger"}


def test_products_of_two_values_or_two_constants_are_no_linears(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.weight("v", 12, 12)
    build.weight("vector", 12)
    build.node("MatMul", ["w", "v"], "constant")
    build.node("MatMul", ["x", "x"], "h")
    build.node("Add", ["h", "constant"], "g")
    build.node("MatMul", ["g", "vector"], "y")
    path = build.save(tmp_path / "none.onnx", {"x": [12, 12]}, ["y"])
    assert refused(path) == {}


def test_a_deep_graph_is_read_to_its_end(tmp_path: Path) -> None:
    """Deeper than Python calls functions."""
    build = Builder()
    value = "x"
    for index in range(1500):
        value = build.node("Tanh", [value], f"h{index}")
    build.node("MatMul", [value, value], "y")
    path = build.save(tmp_path / "deep.onnx", {"x": [12, 12]}, ["y"])
    assert refused(path) == {}
