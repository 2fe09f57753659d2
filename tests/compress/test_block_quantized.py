"""Quantized weights: what ONNX Runtime multiplies with is what is computed with here."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.device.storage import tensor_bytes

SHAPES = [(64, 40), (40, 24), (33, 7), (8, 5)]  # whole blocks, a part of one at the end, less

every_precision = pytest.mark.parametrize("precision", LAYOUTS)
every_shape = pytest.mark.parametrize("shape", SHAPES)


def random_matrix(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product(weight: np.ndarray) -> onnx.ModelProto:
    """A graph that multiplies with a float32 matrix."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in zip("xy", weight.shape, strict=True)
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    constants = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph([node], "product", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def multiplied(blocks: Blocks, x: np.ndarray) -> np.ndarray:
    """``x`` times the stored matrix, by ONNX Runtime at accuracy level 1."""
    inputs, outputs = blocks.in_features, blocks.out_features
    tensors = {
        "w": blocks.packed, "scales": blocks.scales, "zero_points": blocks.zero_points.ravel(),
    }  # fmt: skip
    node = helper.make_node(
        "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", K=inputs, N=outputs,
        bits=blocks.layout.bits,
        block_size=blocks.layout.block_size, accuracy_level=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return run(model, x)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@every_precision
@every_shape
def test_onnx_runtime_multiplies_with_the_dense_matrix(
    precision: WeightPrecision, shape: tuple[int, int]
) -> None:
    blocks = quantize(random_matrix(shape), precision)
    x = random_matrix((3, shape[0]), seed=1)
    np.testing.assert_allclose(multiplied(blocks, x), x @ blocks.dense(), atol=1e-4)


@every_precision
@every_shape
def test_every_number_is_within_half_a_step(
    precision: WeightPrecision, shape: tuple[int, int]
) -> None:
    weight = random_matrix(shape)
    blocks = quantize(weight, precision)
    step = np.repeat(blocks.scales, blocks.layout.block_size, axis=1)[:, : shape[0]].T
    # The zero point is rounded as well: numbers at an end of the range may be another half off.
    assert (np.abs(blocks.dense() - weight) <= 1.01 * step).all()
    assert np.abs(blocks.dense() - weight).mean() < 0.3 * step.mean()


@every_precision
@every_shape
def test_bytes_are_those_that_candidates_count(
    precision: WeightPrecision, shape: tuple[int, int]
) -> None:
    blocks = quantize(random_matrix(shape), precision)
    stored = (blocks.packed.nbytes, blocks.scales.nbytes, blocks.zero_points.nbytes)
    assert stored == tensor_bytes(shape, precision, "float32")


@every_precision
def test_columns_are_rounded_by_themselves(precision: WeightPrecision) -> None:
    """So that the factor of a smaller rank is a part of that of a larger one."""
    weight = random_matrix((64, 40))
    np.testing.assert_array_equal(
        quantize(weight[:, :8], precision).dense(), quantize(weight, precision).dense()[:, :8]
    )


@every_precision
def test_whole_blocks_of_rows_are_rounded_by_themselves(precision: WeightPrecision) -> None:
    rows, weight = 2 * LAYOUTS[precision].block_size, random_matrix((288, 10))
    np.testing.assert_array_equal(
        quantize(weight[:rows], precision).dense(), quantize(weight, precision).dense()[:rows]
    )


PUBLIC_SHAPES = [
    (64, 40), (33, 7), (8, 5), (1, 3), (32, 1), (95, 1), (352, 3), (40, 96), (96, 513),
]  # fmt: skip
WEIGHTS = {
    "normal": lambda shape: random_matrix(shape),
    "one sign": lambda shape: np.abs(random_matrix(shape)) + 1,
    "zero": lambda shape: np.zeros(shape, np.float32),
    "one large": lambda shape: np.where(np.arange(shape[1]) == 0, 1e4, random_matrix(shape)),
    "tiny": lambda shape: 1e-30 * random_matrix(shape),
}


@every_precision
@pytest.mark.parametrize("shape", PUBLIC_SHAPES)
def test_the_public_quantizer_of_onnx_runtime_stores_the_same_bytes(
    precision: WeightPrecision, shape: tuple[int, int]
) -> None:
    """It is too heavy to be called: its module sets up logging for the whole process."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    for kind in WEIGHTS:
        weight = WEIGHTS[kind](shape).astype(np.float32)
        blocks = quantize(weight, precision)
        public = MatMulNBitsQuantizer(
            product(weight),
            bits=blocks.layout.bits,
            block_size=blocks.layout.block_size,
            is_symmetric=False,
        )
        public.process()
        (node,) = public.model.model.graph.node
        stored = {
            each.name: numpy_helper.to_array(each) for each in public.model.model.graph.initializer
        }
        packed, scales, zero_points = (stored[name] for name in node.input[1:4])
        assert node.op_type == "MatMulNBits"
        np.testing.assert_array_equal(blocks.packed, packed, kind)
        np.testing.assert_array_equal(blocks.scales.ravel(), scales.ravel(), kind)
        np.testing.assert_array_equal(blocks.zero_points.ravel(), zero_points.ravel(), kind)
        sizes = {each.name: each.i for each in node.attribute}
        assert (sizes["K"], sizes["N"]) == (blocks.in_features, blocks.out_features)
