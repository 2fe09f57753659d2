"""Work of a graph file for every token: its products with constants, and its other nodes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgelr.core.vocabulary import WeightPrecision
from edgelr.device.latency import Product, Workload
from edgelr.graph.residency import QUANTIZED_PRODUCT, precision_of
from edgelr.graph.save import load_graph
from edgelr.graph.split_tied_table import PRODUCTS

_FLOATS: dict[ir.DataType, WeightPrecision] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
}
_FREE = ("Constant", "Reshape", "Squeeze", "Unsqueeze", "Shape", "Identity")  # no value moves


def read_workload(path: Path, tokens: int | None = None) -> Workload:
    """List the products of a graph file; its weights are not read.

    Args:
        path: graph file.
        tokens: tokens of the image or sound that it reads, whose products may have more positions;
            None counts one position for each token.
    """
    model, products, others = load_graph(path), [], 0
    if tokens is not None:
        ShapeInferencePass()(model)
    for node in model.graph:
        product = _product(node)
        if product is not None:
            often = 1.0 if tokens is None else _positions(node) / tokens
            products.append(replace(product, positions_per_token=often))
        elif node.op_type not in _FREE:
            others += 1
    return Workload(tuple(products), others)


def read_positions(path: Path) -> dict[str, int]:
    """Count the rows that each constant matrix multiplies in one run, by the weight's name.

    Free axes count as one.
    """
    model, found = load_graph(path), Counter[str]()
    ShapeInferencePass()(model)
    for node in model.graph:
        if _product(node) is not None:
            weight = node.inputs[1]
            found[(weight.name if weight else None) or ""] += _positions(node)
    return dict(found)


def _positions(node: ir.Node) -> int:
    """Count the rows that a node multiplies for one image or sound: its axes but the last.

    A free axis is the number of these, or a multiple of it that its name spells.
    """
    known = [value.shape for value in (node.inputs[0], *node.outputs) if value and value.shape]
    axes = [str(axis) for axis in known[0][:-1]] if known else []
    if node.op_type == "Conv":  # (images, outputs, height, width)
        axes = [str(axis) for axis in (node.outputs[0].shape or ())[2:]]
    return math.prod(int(number) for axis in axes for number in re.findall(r"\b\d+\b", axis))


def _product(node: ir.Node) -> Product | None:
    if node.op_type == QUANTIZED_PRODUCT:
        inputs, outputs = (node.attributes[name].as_int() for name in ("K", "N"))
        return Product(inputs, outputs, precision_of(node))
    found = node.op_type in (*PRODUCTS, "Conv") and len(node.inputs) > 1
    weight = node.inputs[1] if found else None
    if weight is None or weight.const_value is None:
        return None
    inputs, outputs = _sizes(node, weight.const_value.shape.numpy())
    if not inputs:
        return None
    precision = _FLOATS.get(weight.const_value.dtype)
    return None if precision is None else Product(inputs, outputs, precision)


def _sizes(node: ir.Node, shape: Sequence[int]) -> tuple[int, int]:
    """Find the inputs and outputs of a product with a constant of this shape; zeros for others."""
    if node.op_type == "Conv":
        alone = node.attributes.get_int("group", 1) == 1
        return (math.prod(shape[1:]), shape[0]) if alone else (0, 0)
    if len(shape) != 2:
        return 0, 0
    rows, columns = shape
    return (columns, rows) if node.attributes.get_int("transB", 0) else (rows, columns)
