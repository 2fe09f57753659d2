"""Constants that are computed from constants, put where the linears behind them are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.core.vocabulary import Array
from edgelr.graph.nodes import store

WEIGHT_PLACES = {"MatMul": (0, 1), "Gemm": (0, 1), "Conv": (1,)}
"""Inputs that are matrices or kernels, by operator."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_RESHAPING = ("Reshape", "Squeeze", "Unsqueeze")
_COMPUTING = ("Cast", "DequantizeLinear", "Transpose", *_RESHAPING)

_Key: TypeAlias = tuple[object, ...]


class FoldConstants(InPlacePass):
    """Put constants where ``find_linears`` sees them; they are computed when they are read.

    1. The Identity of a constant becomes the constant.
    2. Cast to a float, Reshape, Squeeze, Unsqueeze, Transpose and DequantizeLinear of a constant
       become its values, where they lead to weights of linears and nothing else reads the constant:
       a table that is also gathered from would be there twice, and one of integers be four times as
       large. Where the other factor of the product is dequantized as well, both stay: ONNX Runtime
       multiplies the integers.

    ir-py's ``IdentityEliminationPass`` removes every other Identity as well, among them those by
    which a branch of If returns an outer value; ONNX Runtime refuses the graph that is left.
    onnxscript's ``fold_constants`` computes everything at once, and holds it in memory.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fold the constants of the graph and of the bodies inside it."""
        made: dict[_Key, ir.Value] = {}
        folded = [_fold(model.graph, node, made) for node in list(model.graph.all_nodes())]
        return PassResult(model, modified=any(folded))


def _fold(graph: ir.Graph, node: ir.Node, made: dict[_Key, ir.Value]) -> bool:
    source = node.inputs[0] if node.inputs else None
    if source is None or source.const_value is None or node.outputs[0].is_graph_output():
        return False
    if node.op_type == "Identity":  # case 1
        folded = source
    else:  # case 2
        if not all(_leads_to_weights(use.node, use.idx) for use in source.uses()):
            return False
        key = (node.op_type, *node.inputs, *map(str, node.attributes.values()))
        if key not in made:
            made[key] = _computed(graph, node, source)
        folded = made[key]
    ir.convenience.replace_all_uses_with(node.outputs[0], folded)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _leads_to_weights(node: ir.Node, place: int) -> bool:
    """Whether a node can be folded, and only linears read what it gives, at once or folded too."""
    if place or node.op_type not in _COMPUTING or node.domain not in ("", "ai.onnx"):
        return False
    if any(each is not None and each.const_value is None for each in node.inputs[1:]):
        return False
    if node.op_type == "Cast" and node.attributes.get_int("to") not in _FLOATS:
        return False
    output = node.outputs[0]
    return not output.is_graph_output() and all(
        _is_weight(use.node, use.idx) or _leads_to_weights(use.node, use.idx)
        for use in output.uses()
    )


def _is_weight(node: ir.Node, place: int) -> bool:
    if place not in WEIGHT_PLACES.get(node.op_type, ()):
        return False
    other = node.inputs[1 - place]
    producer = None if other is None else other.producer()
    return producer is None or producer.op_type != "DequantizeLinear"


def _computed(graph: ir.Graph, node: ir.Node, source: ir.Value) -> ir.Value:
    """Register what a node makes of a constant; it is computed when it is read."""
    tensor, dtype = source.const_value, _dtype(node, source)
    assert tensor is not None
    shape = _shape(node, tensor.shape.numpy())
    compute = _function(node, shape)
    name = f"{source.name}.{node.op_type.lower()}"
    while name in graph.initializers:
        name += "_"
    lazy = ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(compute(tensor.numpy())), dtype=dtype, name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
    return store(graph, lazy)


def _dtype(node: ir.Node, source: ir.Value) -> ir.DataType:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to"))
    if node.attributes.get_int("output_dtype", 0):
        return ir.DataType(node.attributes.get_int("output_dtype"))
    wanted = source if node.op_type != "DequantizeLinear" else node.inputs[1]
    assert wanted is not None
    assert wanted.const_value is not None
    return wanted.const_value.dtype


def _shape(node: ir.Node, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of what a node makes of a constant of this shape."""
    if node.op_type == "Transpose":
        return tuple(shape[axis] for axis in _permutation(node, len(shape)))
    if node.op_type == "Reshape":
        return _reshaped(shape, _numbers(node), node.attributes.get_int("allowzero", 0) == 1)
    if node.op_type == "Squeeze":
        ones = tuple(axis for axis, size in enumerate(shape) if size == 1)
        gone = {axis % len(shape) for axis in _numbers(node) or ones}
        return tuple(size for axis, size in enumerate(shape) if axis not in gone)
    if node.op_type == "Unsqueeze":
        axes = len(shape) + len(_numbers(node))
        new, sizes = {axis % axes for axis in _numbers(node)}, iter(shape)
        return tuple(1 if axis in new else next(sizes) for axis in range(axes))
    return tuple(shape)


def _reshaped(shape: Sequence[int], wanted: Sequence[int], zeros: bool) -> tuple[int, ...]:
    """Resolve the sizes of a Reshape: 0 is that of the source, -1 what is left."""
    sizes = [size or (0 if zeros else shape[axis]) for axis, size in enumerate(wanted)]
    known = math.prod(size for size in sizes if size >= 0)
    return tuple(math.prod(shape) // known if size < 0 else size for size in sizes)


def _numbers(node: ir.Node) -> list[int]:
    """Sizes or axes: the second input, or, in older operator sets, an attribute."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None or given.const_value is None:
        return list(node.attributes.get_ints("axes", ()))
    return [int(number) for number in given.const_value.numpy()]


def _permutation(node: ir.Node, axes: int) -> list[int]:
    return list(node.attributes.get_ints("perm", tuple(reversed(range(axes)))))


def _function(node: ir.Node, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """What a node computes of a constant; the node itself is gone when that is read."""
    if node.op_type == "Transpose":
        axes = _permutation(node, len(shape))
        return lambda array: array.transpose(axes)
    if node.op_type in _RESHAPING:
        return lambda array: array.reshape(shape)
    if node.op_type == "Cast":
        dtype = ir.DataType(node.attributes.get_int("to")).numpy()
        return lambda array: array.astype(dtype)
    axis = node.attributes.get_int("axis", 1)
    block = node.attributes.get_int("block_size", 0)
    given = [value.const_value for value in node.inputs[1:] if value is not None]
    tensors = [tensor for tensor in given if tensor is not None]
    return lambda array: _dequantized(array, [each.numpy() for each in tensors], axis, block)


def _dequantized(integers: Array, parameters: Sequence[Array], axis: int, block: int) -> Array:
    """Compute ``(integers - zero points) * scales``.

    Args:
        integers: values of any shape.
        parameters: scales, and zero points if there are any: of a tensor, an axis, or blocks of it.
        axis: axis of the parameters.
        block: size of a block; 0 where there are none.
    """
    along = [-1 if each == axis % integers.ndim else 1 for each in range(integers.ndim)]
    parts = []
    for part in parameters:
        if block:
            wide = np.repeat(part, block, axis)
            parts.append(wide[tuple(slice(size) for size in integers.shape)])
        else:
            parts.append(part.reshape(along) if part.size > 1 else part)
    zeros = parts[1].astype(np.float32) if len(parts) > 1 else np.float32(0)
    exact = (integers.astype(np.float32) - zeros) * parts[0].astype(np.float32)
    return exact.astype(parts[0].dtype)
