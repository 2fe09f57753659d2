"""Constants that are computed from constants: folded where linears read them, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.graph.save import save_graph
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.tensors import open_tensors
from tests.helpers.foreign_graphs import Builder, random


def constant(build: Builder, name: str, array: np.ndarray) -> str:
    build.weights.append(numpy_helper.from_array(array, name))
    return name


def numbers(build: Builder, name: str, *values: int) -> str:
    return constant(build, name, np.array(values, np.int64))


def cast(build: Builder) -> None:
    build.weight("w", 12, 20, dtype=np.float16)
    build.node("Cast", ["w"], "weight", to=TensorProto.FLOAT)


def reshape(build: Builder) -> None:
    build.weight("w", 1, 240)
    build.node("Reshape", ["w", numbers(build, "sizes", -1, 20)], "weight")


def reshape_with_a_kept_size(build: Builder) -> None:
    build.weight("w", 12, 4, 5)
    build.node("Reshape", ["w", numbers(build, "sizes", 0, -1)], "weight")


def squeeze(build: Builder) -> None:
    build.weight("w", 1, 12, 1, 20)
    build.node("Squeeze", ["w", numbers(build, "axes", 0, -2)], "weight")


def squeeze_of_every_one(build: Builder) -> None:
    build.weight("w", 1, 12, 20)
    build.node("Squeeze", ["w"], "weight")


def unsqueeze(build: Builder) -> None:
    build.weight("w", 12, 20)
    build.node("Unsqueeze", ["w", numbers(build, "axes", 0)], "weight")


def transpose_of_three_axes(build: Builder) -> None:
    build.weight("w", 12, 1, 20)
    build.node("Transpose", ["w"], "weight", perm=[1, 0, 2])


def identity(build: Builder) -> None:
    build.weight("w", 12, 20)
    build.node("Identity", ["w"], "weight")


def quantized(build: Builder, shape: tuple[int, ...], type_: type = np.int8) -> str:
    integers = np.random.default_rng(3).integers(-7, 8, (12, 20)).astype(type_)
    scale = np.random.default_rng(4).uniform(0.02, 0.2, shape).astype(np.float32)
    zero = np.random.default_rng(5).integers(-3, 4, shape).astype(type_)
    constant(build, "w", integers)
    constant(build, "scale", scale)
    constant(build, "zero", zero)
    return "w"


def dequantize_a_tensor(build: Builder) -> None:
    build.node("DequantizeLinear", [quantized(build, ()), "scale", "zero"], "weight")


def dequantize_columns(build: Builder) -> None:
    build.node("DequantizeLinear", [quantized(build, (20,)), "scale", "zero"], "weight")


def dequantize_rows(build: Builder) -> None:
    build.node("DequantizeLinear", [quantized(build, (12,)), "scale"], "weight", axis=-2)


def dequantize_blocks(build: Builder) -> None:
    inputs = [quantized(build, (3, 20)), "scale", "zero"]
    build.node("DequantizeLinear", inputs, "weight", axis=0, block_size=4)


def dequantize_blocks_of_4_bits(build: Builder) -> None:
    inputs = [quantized(build, (1, 20), ml_dtypes.int4), "scale"]
    build.node("DequantizeLinear", inputs, "weight", axis=0, block_size=16)


def a_chain(build: Builder) -> None:
    integers = np.random.default_rng(3).integers(-7, 8, (20, 12)).astype(np.int8)
    constant(build, "w", integers)
    constant(build, "scale", np.full(20, 0.1, np.float16))
    build.node("DequantizeLinear", ["w", "scale"], "half", axis=0)
    build.node("Cast", ["half"], "float", to=TensorProto.FLOAT)
    build.node("Transpose", ["float"], "weight")


KINDS = (
    cast, reshape, reshape_with_a_kept_size, squeeze, squeeze_of_every_one, unsqueeze,
    transpose_of_three_axes, identity, dequantize_a_tensor, dequantize_columns, dequantize_rows,
    dequantize_blocks, dequantize_blocks_of_4_bits, a_chain,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_linear_is_found_behind_what_computes_its_weight(
    kind: Callable[[Builder], None], tmp_path: Path
) -> None:
    build = Builder(opset=21)
    kind(build)
    build.node("MatMul", ["x", "weight"], "y", name="only")
    source = build.save(tmp_path / "source.onnx", {"x": ["rows", 12]}, ["y"])
    model = open_foreign(source)
    (linear,) = find_linears(model).found
    assert (linear.site.in_features, linear.site.out_features) == (12, 20)
    assert linear.weight.const_value is not None
    assert linear.read_weight().T.size == np.prod(linear.weight.const_value.shape.numpy())
    save_graph(model, tmp_path / "folded.onnx", 1000, 1000, check=False)
    x = random(5, 12)
    exact = Execution(as_written=True)
    expected, found = (
        open_tensors(path, exact).outputs({"x": x})["y"]
        for path in (source, tmp_path / "folded.onnx")
    )
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_what_is_folded_is_computed_when_it_is_read(tmp_path: Path) -> None:
    """A large weight would be in memory as often as it is opened."""
    build = Builder()
    cast(build)
    build.node("MatMul", ["x", "weight"], "y")
    source = build.save(tmp_path / "source.onnx", {"x": [3, 12]}, ["y"])
    weights = open_foreign(source).graph.initializers
    assert isinstance(weights["w.cast"].const_value, ir.LazyTensor)


def test_two_readers_of_one_constant_share_what_is_folded(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12, dtype=np.float16)
    for name in ("a", "b"):
        build.node("Cast", ["w"], name, to=TensorProto.FLOAT)
    build.node("MatMul", ["x", "a"], "h", name="first")
    build.node("MatMul", ["h", "b"], "y", name="second")
    source = build.save(tmp_path / "source.onnx", {"x": [3, 12]}, ["y"])
    (linear,) = find_linears(open_foreign(source)).found
    assert [node.name for node in linear.nodes] == ["first", "second"]


def test_a_table_of_integers_that_is_gathered_from_stays_small(tmp_path: Path) -> None:
    build = Builder()
    quantized(build, (20,))
    build.node("DequantizeLinear", ["w", "scale", "zero"], "table")
    build.node("Gather", ["table", "ids"], "x")
    build.node("MatMul", ["table", "x"], "y", name="head")
    types = {"ids": TensorProto.INT64}
    source = build.save(tmp_path / "source.onnx", {"ids": [20]}, ["y"], types=types)
    model = open_foreign(source)
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Gather", "MatMul"]
    assert find_linears(model).refused == {"head": "its weight is also read by Gather"}


def test_a_product_of_integers_stays_one(tmp_path: Path) -> None:
    build = Builder()
    quantized(build, ())
    build.node("QuantizeLinear", ["x", "scale", "zero"], "q")
    build.node("DequantizeLinear", ["q", "scale", "zero"], "d")
    build.node("DequantizeLinear", ["w", "scale", "zero"], "weight")
    build.node("MatMul", ["d", "weight"], "y", name="only")
    source = build.save(tmp_path / "source.onnx", {"x": [3, 12]}, ["y"])
    found = find_linears(open_foreign(source))
    assert found.refused == {"only": "its input is quantized, as its weight is"}
