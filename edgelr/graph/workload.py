"""What a graph file computes for every token: its products with constants, and its other nodes."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgelr.graph.residency import PRODUCTS, QUANTIZED_PRODUCT, precision_of_bits
from edgelr.graph.save import load_graph
from edgelr.latency import Product, Workload
from edgelr.types import WeightPrecision

_FLOATS: dict[ir.DataType, WeightPrecision] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
}
_FREE = ("Constant", "Reshape", "Squeeze", "Unsqueeze", "Shape", "Identity")  # no value moves


def read_workload(path: Path) -> Workload:
    """List the products of a graph file; its weights are not read."""
    products, others = [], 0
    for node in load_graph(path).graph:
        product = _product(node)
        if product is not None:
            products.append(product)
        elif node.op_type not in _FREE:
            others += 1
    return Workload(tuple(products), others)


def _product(node: ir.Node) -> Product | None:
    if node.op_type == QUANTIZED_PRODUCT:
        inputs, outputs = (node.attributes[name].as_int() for name in ("K", "N"))
        return Product(inputs, outputs, precision_of_bits(node.attributes["bits"].as_int()))
    weight = node.inputs[1] if node.op_type in PRODUCTS and len(node.inputs) > 1 else None
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    inputs, outputs = weight.const_value.shape.numpy()
    transposed = node.attributes.get("transB")
    if transposed is not None and transposed.as_int():
        inputs, outputs = outputs, inputs
    precision = _FLOATS.get(weight.const_value.dtype)
    return None if precision is None else Product(inputs, outputs, precision)
