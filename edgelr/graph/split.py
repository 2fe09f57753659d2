"""Split the linears of a foreign graph into two, in place.

MatMul and Gemm, whose bias, alpha and beta stay with the second product::

    x ── MatMul(W) ── y      becomes      x ── MatMul(down) ── MatMul(up) ── y
    x ── Gemm(W, b) ── y     becomes      x ── MatMul(down) ── Gemm(up, b) ── y

Conv, whose strides and padding stay with the first: what is padded is zero after it, too::

    x ── Conv(W, b) ── y     becomes      x ── Conv(down) ── Conv(up, b) ── y

The node of the original becomes the second product, so that its output keeps its name and its
users, in bodies of If and Loop as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgelr.graph.cleanup import constant
from edgelr.graph.linears import Linear, Linears

Array: TypeAlias = NDArray[Any]

_OF_POSITIONS = ("strides", "pads", "auto_pad", "dilations", "kernel_shape")


@dataclass(frozen=True, slots=True)
class Product:
    """``x @ down @ up``. Shapes: ``down (in_features, rank)``, ``up (rank, out_features)``."""

    down: Array
    up: Array

    def dense(self) -> Array:
        """Multiply the factors out, in float64: ``(out_features, in_features)``."""
        return (self.down.astype(np.float64) @ self.up.astype(np.float64)).T


def split_linears(model: ir.Model, linears: Linears, factors: Mapping[str, Product]) -> None:
    """Split every linear that has factors; its weight goes, unless something else reads it."""
    for linear in linears.found:
        if linear.site.name in factors:
            _split(model.graph, linear, factors[linear.site.name])


def _split(graph: ir.Graph, linear: Linear, product: Product) -> None:
    name, axes = linear.site.name, linear.weight.const_value
    assert axes is not None
    kernel = (1,) * (len(axes.shape) - 2)
    dtype = axes.dtype.numpy()
    is_conv = bool(kernel)
    first = product.down.T.reshape(*product.down.T.shape, *kernel) if is_conv else product.down
    second = product.up.T if linear.transposed else product.up
    down = _store(graph, f"{name}.down", first.astype(dtype))
    up = _store(graph, f"{name}.up", second.reshape(*second.shape, *kernel).astype(dtype))
    for index, node in enumerate(linear.nodes):
        suffix = f".{index}" if index else ""
        before = _first(node, down, f"{name}/down{suffix}", is_conv)
        node.replace_input_with(0, before)
        node.replace_input_with(1, up)
    graph.initializers.pop(linear.weight.name or "", None)


def _first(node: ir.Node, down: ir.Value, name: str, is_conv: bool) -> ir.Value:
    """Insert the product with ``down`` before ``node``, which loses what belongs to positions."""
    attributes = list(node.attributes.values()) if is_conv else []
    first = ir.Node(
        "", "Conv" if is_conv else "MatMul", [node.inputs[0], down], attributes, name=name
    )
    hidden = first.outputs[0]
    hidden.name, hidden.type = f"{name}/output", down.type
    assert node.graph is not None
    node.graph.insert_before(node, first)
    if is_conv:
        for key in _OF_POSITIONS:
            node.attributes.pop(key, None)
    return hidden


def _store(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Register an initializer under a name that nothing else has."""
    while name in graph.initializers:
        name += "_"
    return constant(graph, name, np.ascontiguousarray(array))
