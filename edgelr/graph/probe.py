"""Small graphs that are timed to find the rates of a machine's kernels, which may be a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.core.vocabulary import PRECISION_BYTES, Precision, WeightPrecision
from edgelr.graph.plain import MICROSOFT, PlainGraph, product_attributes


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
    dtype = "float16" if weights == "float16" else values
    graph = PlainGraph("products", dtype, ("tokens", inputs), ["x"])
    generator, value = np.random.default_rng(0), "x"
    for index in range(2 * pairs):
        shape = (inputs, outputs) if index % 2 == 0 else (outputs, inputs)
        matrix = generator.standard_normal(shape, np.float32) / np.sqrt(shape[0], dtype=np.float32)
        if weights in PRECISION_BYTES:
            value = graph.node("MatMul", [value, graph.constant(f"w{index}", matrix.astype(dtype))])
        else:
            stored = quantize(matrix, weights)
            given = [value, *_quantized_tensors(graph, f"w{index}", stored)]
            attributes = product_attributes(stored, accuracy_level)
            value = graph.node("MatMulNBits", given, attributes, MICROSOFT)
    graph.save(path, value)


def _quantized_tensors(graph: PlainGraph, name: str, stored: Blocks) -> list[str]:
    return [
        graph.constant(name, stored.packed),
        graph.constant(f"{name}.scales", stored.scales.astype(graph.dtype)),
        graph.constant(f"{name}.zero_points", stored.zero_points.ravel()),
    ]


def write_norms(path: Path, width: int, nodes: int, values: Precision) -> None:
    """Write a chain of ``norm(x + y)`` of ``(1, tokens, width)``: nodes that compute little."""
    graph = PlainGraph("norms", values, (1, "tokens", width), ["x", "y"])
    scale, value = graph.constant("scale", np.ones(width, values)), "x"
    for _ in range(nodes):
        given, attributes = [value, "y", scale], {"epsilon": 1e-5}
        value = graph.node("SkipSimplifiedLayerNormalization", given, attributes, MICROSOFT)
    graph.save(path, value)


def write_attention(path: Path, heads: int, head_size: int, values: Precision) -> None:
    """Write the attention of ``(1, tokens, heads * head_size)`` to itself."""
    inputs = ["query", "key", "value"]
    graph = PlainGraph("attention", values, (1, "tokens", heads * head_size), inputs)
    graph.save(path, graph.node("MultiHeadAttention", inputs, {"num_heads": heads}, MICROSOFT))


def write_decoding(
    path: Path, heads: int, head_size: int, past_tokens: int, nodes: int, values: Precision
) -> None:
    """Write a chain of attentions of one token to a cache of ``past_tokens``."""
    graph = PlainGraph("decoding", values, (1, 1, heads * head_size), ["x"])
    cache = np.zeros((1, heads, past_tokens, head_size), values)
    known = [
        graph.constant("past_key", cache),
        graph.constant("past_value", cache),
        graph.constant("last", np.array([past_tokens], np.int32)),
        graph.constant("total", np.array(past_tokens + 1, np.int32)),
    ]
    sizes, value = {"num_heads": heads, "kv_num_heads": heads}, "x"
    for _ in range(nodes):
        given = [value, value, value, *known]
        value = graph.node("GroupQueryAttention", given, sizes, MICROSOFT, outputs=3)
    graph.save(path, value)
