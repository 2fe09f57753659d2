"""Store a float32 graph in float16."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgelr.core.errors import EdgelrError

LARGEST = float(np.finfo(np.float16).max)
SINGLE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def to_float16(model: ir.Model) -> None:
    """Turn every float32 weight, value, input and output into float16, in place.

    Norms and softmax inside ONNX Runtime's fused operators still accumulate in float32, and so do
    angles: after some turns float16 has no digits left for them.

    Raises:
        EdgelrError: a weight is too large for float16.
    """
    graph = model.graph
    exact = _angles(graph)
    kept = {value for node in exact for value in (*node.inputs, *node.outputs)}
    _cast_behind(graph, exact)
    for value in set(graph.initializers.values()) - kept:
        if value.const_value is not None and value.const_value.dtype == SINGLE:
            value.const_value = _half(value.const_value)
            value.type = ir.TensorType(HALF)
    for value in (*graph.inputs, *graph.outputs):
        _retype(value)
    for node in graph:
        if node in exact:
            continue
        for output in node.outputs:
            _retype(output)
        _convert_attributes(node)


def _angles(graph: ir.Graph) -> set[ir.Node]:
    """Find every Cos and Sin, and what computes their angles from whole numbers and constants."""
    found: set[ir.Node] = set()
    ahead = [node for node in graph if node.op_type in ("Cos", "Sin")]
    while ahead:
        node = ahead.pop()
        if node in found:
            continue
        found.add(node)
        for value in node.inputs:
            made = None if value is None else value.producer()
            if made is not None and value is not None and value.dtype in (SINGLE, None):
                ahead.append(made)
    return found


def _cast_behind(graph: ir.Graph, exact: set[ir.Node]) -> None:
    """Give float16 to the other readers of what is computed or stored in float32."""
    made = [output for node in exact for output in node.outputs]
    stored = [value for value in graph.initializers.values() if value.dtype == SINGLE]
    for value in (*made, *stored):
        node, others = value.producer(), [use for use in value.uses() if use.node not in exact]
        if node is None:
            wanted = len(others) < len(value.uses())  # it is read by both
        else:
            wanted = value.dtype == SINGLE or node.op_type in ("Cos", "Sin")
        if not (others and wanted):
            continue
        cast = ir.node("Cast", [value], {"to": int(HALF)}, name=f"{value.name}/float16")
        half = cast.outputs[0]
        half.name, half.shape, half.type = f"{value.name}_float16", value.shape, ir.TensorType(HALF)
        if node is None:
            graph.insert_before(graph[0], cast)
        else:
            graph.insert_after(node, cast)
        for use in others:
            use.node.replace_input_with(use.idx, half)


def _retype(value: ir.Value) -> None:
    if value.dtype == SINGLE:
        value.type = ir.TensorType(HALF)


def _half(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """Convert when the file is written, so that no two copies of the weights are in memory."""

    def convert() -> ir.TensorProtocol:
        array = tensor.numpy()
        if array.size and float(np.abs(array).max()) > LARGEST:
            # A mask's "minus infinity" is any number that is far enough below every score.
            if array.size > 1 or array.max() > LARGEST:
                raise EdgelrError(
                    f"The weight {tensor.name} reaches {np.abs(array).max():.3g}; float16 ends at "
                    f"{LARGEST:.0f}. Export this model with --precision float32."
                )
            array = np.clip(array, -LARGEST, LARGEST)
        return ir.tensor(array.astype(np.float16), name=tensor.name)

    return ir.LazyTensor(
        convert, dtype=HALF, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name
    )


def _convert_attributes(node: ir.Node) -> None:
    if node.op_type == "Cast" and node.attributes["to"].as_int() == SINGLE:
        node.attributes["to"] = ir.AttrInt64("to", int(HALF))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == SINGLE:
            node.attributes[name] = ir.AttrTensor(name, _half(attribute.as_tensor()))
