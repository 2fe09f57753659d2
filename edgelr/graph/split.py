"""Split the linears of a graph that edgelr did not trace into two.

1. MatMul::

       x ── MatMul(W) ── y      becomes      x ── MatMul(down) ── MatMul(up) ── y

2. Gemm, whose bias, alpha and beta stay with the second product::

       x ── Gemm(W, b) ── y     becomes      x ── MatMul(down) ── Gemm(up, b) ── y

3. Conv, whose kernel, strides and padding stay with the first; the second is pointwise::

       x ── Conv(W, b) ── y     becomes      x ── Conv(down) ── Conv(up, b) ── y

4. MatMul with the weight on its left::

       W ── MatMul(x) ── y      becomes      up ── MatMul ── y
                                           down ── MatMul(x) ──┘

The node of the original becomes the second product, so that its output keeps its name and its
users, in bodies of If and Loop as well, and nodes that share a weight share its factors. So nothing
about the graph has to be known. ``edgelr.graph.factorize`` replaces the nodes of a traced graph
instead: it has further forms, groups that compute a product once, and quantized factors, and its
sites are torch modules with one node each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.core.vocabulary import Array
from edgelr.graph.linears import Linear, Linears
from edgelr.graph.nodes import constant

_OF_POSITIONS = ("strides", "pads", "auto_pad", "dilations", "kernel_shape")


@dataclass(frozen=True, slots=True)
class ArrayLowRank:
    """A ``LowRank`` of numpy arrays: torch is not loaded for graphs that it did not trace.

    Attributes:
        down: first factor, ``(in_features, rank)``.
        up: second factor, ``(rank, out_features)``.
    """

    down: Array
    up: Array

    def dense(self) -> Array:
        """Multiply the factors out, in float64: ``(out_features, in_features)``."""
        return (self.down.astype(np.float64) @ self.up.astype(np.float64)).T


@dataclass(frozen=True)
class SplitLinears(InPlacePass):
    """Split every linear that has factors.

    Attributes:
        linears: linears of this graph.
        factors: factors by name of the site.
    """

    linears: Linears
    factors: Mapping[str, ArrayLowRank]

    def call(self, model: ir.Model) -> PassResult:
        """Split the nodes; their weights go."""
        chosen = [each for each in self.linears.found if each.site.name in self.factors]
        for linear in chosen:
            _split(model.graph, linear, self.factors[linear.site.name])
        return PassResult(model, modified=bool(chosen))


def _split(graph: ir.Graph, linear: Linear, factors: ArrayLowRank) -> None:
    name, stored = linear.site.name, linear.weight.const_value
    assert stored is not None
    shape, dtype = stored.shape.numpy(), stored.dtype.numpy()
    first, second = factors.down, factors.up
    if linear.is_convolution:
        first = first.T.reshape(-1, *shape[1:])
        second = second.T.reshape(*second.T.shape, *(1 for _ in shape[2:]))
    else:
        first = first.T if linear.place == 0 else first
        second = second.T if linear.transposed else second
        first, second = (each.reshape(*shape[:-2], *each.shape) for each in (first, second))
    down = _store_new(graph, f"{name}.down", first.astype(dtype))
    up = _store_new(graph, f"{name}.up", second.astype(dtype))
    for index, node in enumerate(linear.nodes):
        suffix = f".{index}" if index else ""
        hidden = _first(node, down, f"{name}/down{suffix}", linear)
        node.replace_input_with(1 - linear.place, hidden)
        node.replace_input_with(linear.place, up)
    graph.initializers.pop(linear.weight.name or "", None)


def _first(node: ir.Node, down: ir.Value, name: str, linear: Linear) -> ir.Value:
    """Insert the product with ``down`` before ``node``, which loses what belongs to positions."""
    is_conv = linear.is_convolution
    attributes = list(node.attributes.values()) if is_conv else []
    inputs = [node.inputs[1 - linear.place], down]
    first = ir.Node(
        "",
        "Conv" if is_conv else "MatMul",
        inputs if linear.place else inputs[::-1],
        attributes,
        name=name,
    )
    hidden = first.outputs[0]
    hidden.name, hidden.type = f"{name}/output", down.type
    assert node.graph is not None
    node.graph.insert_before(node, first)
    if is_conv:
        for key in _OF_POSITIONS:
            node.attributes.pop(key, None)
    return hidden


def _store_new(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Register an initializer under a name that nothing else has."""
    while name in graph.initializers:
        name += "_"
    return constant(graph, name, np.ascontiguousarray(array))
