"""Small graphs that are timed to find the rates of a machine's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.core.vocabulary import PRECISION_BYTES, Precision, WeightPrecision
from edgelr.graph.nodes import MICROSOFT, constant, quantized_product

Shape: TypeAlias = tuple[int | str, ...]

OPSET, IR_VERSION = 17, 8  # known to every ONNX Runtime since 1.12
_TYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}


def write_products(
    path: Path,
    inputs: int,
    outputs: int,
    weights: WeightPrecision,
    pairs: int,
    accuracy_level: int,
    values: Precision = "float32",
) -> None:
    """Write ``x @ A1 @ B1 @ A2 @ B2 ...``, with ``A (inputs, outputs)`` and ``B`` its mirror image.

    Every product has a weight of its own, so that a long chain reads each of them from memory.

    Args:
        path: graph file; its input ``x`` is ``(tokens, inputs)``.
        inputs: rows of the first weight.
        outputs: columns of the first weight.
        weights: precision of the weights.
        pairs: number of pairs ``A``, ``B``.
        accuracy_level: type in which quantized weights are multiplied: 1 float32, 4 int8.
        values: precision of ``x``; float16 with float16 weights in any case.
    """
    value_type = _TYPES["float16" if weights == "float16" else values]
    x = _value("x", value_type, ("tokens", inputs))
    graph = ir.Graph([x], [], nodes=[], name="products", opset_imports=_opsets())
    generator, value = np.random.default_rng(0), x
    for index in range(2 * pairs):
        shape = (inputs, outputs) if index % 2 == 0 else (outputs, inputs)
        matrix = generator.standard_normal(shape, np.float32) / np.sqrt(shape[0], dtype=np.float32)
        if weights in PRECISION_BYTES:
            weight = constant(graph, f"w{index}", matrix.astype(value_type.numpy()))
            node = ir.node("MatMul", [value, weight], name=f"product{index}")
        else:
            stored = quantize(matrix, weights)
            tensors = _quantized_tensors(graph, f"w{index}", stored, value_type)
            node = quantized_product(stored, [value, *tensors], accuracy_level, f"product{index}")
        graph.append(node)
        value = _named(node, f"y{index}")
    _finish(graph, value, value_type, ("tokens", inputs), path)


def _quantized_tensors(
    graph: ir.Graph, name: str, stored: Blocks, value_type: ir.DataType
) -> list[ir.Value]:
    return [
        constant(graph, name, stored.packed),
        constant(graph, f"{name}.scales", stored.scales.astype(value_type.numpy())),
        constant(graph, f"{name}.zero_points", stored.zero_points.ravel()),
    ]


def write_norms(path: Path, width: int, nodes: int, values: Precision) -> None:
    """Write a chain of ``norm(x + y)`` of ``(1, tokens, width)``: nodes that compute little."""
    shape: Shape = (1, "tokens", width)
    dtype = _TYPES[values]
    x, y = (_value(name, dtype, shape) for name in ("x", "y"))
    graph = ir.Graph([x, y], [], nodes=[], name="norms", opset_imports=_opsets())
    scale, value = constant(graph, "scale", np.ones(width, dtype.numpy())), x
    for index in range(nodes):
        node = ir.node(
            "SkipSimplifiedLayerNormalization",
            [value, y, scale],
            {"epsilon": 1e-5},
            domain=MICROSOFT,
            name=f"norm{index}",
        )
        graph.append(node)
        value = _named(node, f"z{index}")
    _finish(graph, value, dtype, shape, path)


def write_attention(path: Path, heads: int, head_size: int, values: Precision) -> None:
    """Write the attention of ``(1, tokens, heads * head_size)`` to itself."""
    shape: Shape = (1, "tokens", heads * head_size)
    dtype = _TYPES[values]
    inputs = [_value(name, dtype, shape) for name in ("query", "key", "value")]
    graph = ir.Graph(inputs, [], nodes=[], name="attention", opset_imports=_opsets())
    node = ir.node(
        "MultiHeadAttention", inputs, {"num_heads": heads}, domain=MICROSOFT, name="attention"
    )
    graph.append(node)
    _finish(graph, _named(node, "y"), dtype, shape, path)


def write_decoding(
    path: Path, heads: int, head_size: int, past_tokens: int, nodes: int, values: Precision
) -> None:
    """Write a chain of attentions of one token to a cache of ``past_tokens``."""
    shape: Shape = (1, 1, heads * head_size)
    dtype = _TYPES[values]
    x = _value("x", dtype, shape)
    graph = ir.Graph([x], [], nodes=[], name="decoding", opset_imports=_opsets())
    cache = np.zeros((1, heads, past_tokens, head_size), dtype.numpy())
    known = [
        constant(graph, "past_key", cache),
        constant(graph, "past_value", cache),
        constant(graph, "last", np.array([past_tokens], np.int32)),
        constant(graph, "total", np.array(past_tokens + 1, np.int32)),
    ]
    sizes, value = {"num_heads": heads, "kv_num_heads": heads}, x
    for index in range(nodes):
        node = ir.node(
            "GroupQueryAttention",
            [value, value, value, *known],
            sizes,
            domain=MICROSOFT,
            name=f"decoding{index}",
            num_outputs=3,
        )
        graph.append(node)
        value = _named(node, f"z{index}")
    _finish(graph, value, dtype, shape, path)


def _opsets() -> dict[str, int]:
    return {"": OPSET, MICROSOFT: 1}


def _value(name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _named(node: ir.Node, name: str) -> ir.Value:
    value = node.outputs[0]
    value.name = name
    return value


def _finish(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, shape: Shape, path: Path) -> None:
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    graph.outputs.append(value)
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="edgelr"), path)
