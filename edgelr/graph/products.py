"""Products with constants: where the matrix is, and why one is left as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from edgelr.graph.constants import WEIGHT_PLACES

_OTHER_PRODUCTS = frozenset({
    "Attention", "ConvInteger", "ConvTranspose", "DynamicQuantizeMatMul", "Einsum", "FusedConv",
    "FusedGemm", "FusedMatMul", "GRU", "LSTM", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger",
    "MatMulIntegerToFloat", "MatMulNBits", "MoE", "QAttention", "QGemm", "QLinearConv",
    "QLinearMatMul", "QMoE", "RNN",
})  # fmt: skip
"""Operators that multiply by matrices which may be constant, and that are not split."""

_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def weight_place(node: ir.Node) -> int | None:
    """Find the input of a node that is a constant matrix, or kernel, and can be split.

    None where there is none, or where the other factor is constant as well.
    """
    if node.op_type not in WEIGHT_PLACES or node.domain not in ("", "ai.onnx"):
        return None
    constant = [place for place in (0, 1) if _shape(node.inputs[place]) is not None]
    if len(constant) != 1:
        return None
    (place,), shape = constant, _shape(node.inputs[constant[0]]) or ()
    if node.op_type == "MatMul":
        is_matrix = len(shape) > 1 and math.prod(shape[:-2]) == 1
        return place if is_matrix else None
    return place if place == 1 and len(shape) > 1 else None


def is_transposed(node: ir.Node) -> bool:
    """Whether the weight of a linear's node is stored ``(out, in)``."""
    on_the_left = weight_place(node) == 0
    return on_the_left or node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1


def fixed_values(model: ir.Model) -> set[ir.Value]:
    """List what is constant, or computed from constants alone."""
    fixed = {value for value in model.graph.initializers.values() if value.const_value is not None}
    for node in model.graph.all_nodes():
        given = [value for value in node.inputs if value is not None]
        has_body = any(attribute.type in _BODIES for attribute in node.attributes.values())
        if given and not has_body and fixed.issuperset(given):
            fixed.update(node.outputs)
    return fixed


def reason_of_product(node: ir.Node, fixed: set[ir.Value]) -> str | None:
    """Say why a node that has no weight to be split is left as it is; None where it is no linear.

    A linear multiplies a value by a constant, or by what is computed from constants alone.

    Args:
        node: node without a constant matrix that can be split.
        fixed: all that is computed from constants alone.
    """
    if node.op_type in _OTHER_PRODUCTS:
        constant = any(len(_shape(each) or ()) > 1 for each in node.inputs)
        return f"its operator is {node.op_type}" if constant else None
    if node.op_type not in WEIGHT_PLACES or node.domain not in ("", "ai.onnx"):
        return None
    places = [place for place in (0, 1) if node.inputs[place] in fixed]
    if len(places) != 1:
        return None
    weight, other = node.inputs[places[0]], node.inputs[1 - places[0]]
    assert weight is not None
    assert other is not None
    if weight.const_value is None:
        return _reason_of_computed(weight, other)
    if node.op_type != "MatMul":
        return f"its constant is the first input of {node.op_type}"
    shape = weight.const_value.shape.numpy()
    return f"its weight is a batch of {math.prod(shape[:-2])} matrices" if len(shape) > 2 else None


def reason_of_weight(weight: ir.Value, nodes: Sequence[ir.Node]) -> str | None:
    """Say why a weight stays as it is; None where it can be split."""
    strangers = [use.node for use in weight.uses() if use.node not in nodes]
    if strangers:
        return f"its weight is also read by {strangers[0].op_type}"
    if weight.is_graph_output():
        return "its weight is an output of the graph"
    if len({is_transposed(node) for node in nodes}) > 1:
        return "its weight is also read transposed"
    if len({node.op_type == "Conv" for node in nodes}) > 1:
        return "its weight is read by Conv and by MatMul"
    if len({weight_place(node) for node in nodes}) > 1:
        return "its weight is on the left of one product, and on the right of another"
    if any(node.attributes.get_int("group", 1) != 1 for node in nodes):
        return "it is a convolution in groups"
    if any(node.attributes.get_int("transA", 0) for node in nodes):
        return "its input is transposed (transA)"
    return None


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Shape of a constant; None of other values."""
    if value is None or value.const_value is None:
        return None
    return tuple(value.const_value.shape.numpy())


def _reason_of_computed(weight: ir.Value, other: ir.Value) -> str:
    """Say why a weight that is computed from constants is not folded into a constant."""
    producer, quantized = weight.producer(), other.producer()
    assert producer is not None
    if quantized is not None and {producer.op_type, quantized.op_type} == {"DequantizeLinear"}:
        return "its input is quantized, as its weight is"
    ways = [weight, *(value for value in producer.inputs[:1] if value is not None)]
    readers = {use.node.op_type for value in ways for use in value.uses()}
    strangers = sorted(readers - WEIGHT_PLACES.keys() - {producer.op_type})
    if strangers:
        return f"its weight is also read by {strangers[0]}"
    return f"its weight is computed by {producer.op_type}"
