"""Store a float32 graph in float16."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.core.errors import EdgelrError

LARGEST = float(np.finfo(np.float16).max)
SINGLE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


class ToFloat16(InPlacePass):
    """Turn float32 into float16.

    1. Weights are converted when the file is written.
    2. Values, inputs and outputs change their type, and so do attributes that hold tensors, and
       casts to float32.
    3. Angles keep float32: after some turns float16 has no digits left for them.
    4. What is computed or stored in float32 for angles, and read elsewhere too, gets a Cast.

    Norms and softmax inside ONNX Runtime's fused operators still accumulate in float32.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Convert the main graph; a weight that is too large for float16 is found on saving."""
        graph = model.graph
        exact = _angles(graph)  # case 3
        kept = {value for node in exact for value in (*node.inputs, *node.outputs)}
        _cast_behind(graph, exact)  # case 4
        others = [node for node in graph if node not in exact]
        weights = [value for value in graph.initializers.values() if value not in kept]
        outputs = [value for node in others for value in node.outputs]
        changed = [
            *[_convert_weight(value) for value in weights],  # case 1, and below case 2
            *[_retype(value) for value in (*graph.inputs, *graph.outputs, *outputs)],
            *[_convert_attributes(node) for node in others],
        ]
        return PassResult(model, modified=any(changed))


def _angles(graph: ir.Graph) -> set[ir.Node]:
    """Find every Cos and Sin, and the nodes that compute their angles from integers."""
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
    """Give float16 to the other readers of what is computed or stored in float32 (case 4)."""
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


def _convert_weight(value: ir.Value) -> bool:
    if value.const_value is None or value.const_value.dtype != SINGLE:
        return False
    value.const_value = _half(value.const_value)
    value.type = ir.TensorType(HALF)
    return True


def _retype(value: ir.Value) -> bool:
    if value.dtype != SINGLE:
        return False
    value.type = ir.TensorType(HALF)
    return True


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


def _convert_attributes(node: ir.Node) -> bool:
    changed: dict[str, ir.Attr] = {}
    if node.op_type == "Cast" and node.attributes["to"].as_int() == SINGLE:
        changed["to"] = ir.AttrInt64("to", int(HALF))
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == SINGLE:
            changed[name] = ir.AttrTensor(name, _half(attribute.as_tensor()))
    node.attributes.update(changed)
    return bool(changed)
