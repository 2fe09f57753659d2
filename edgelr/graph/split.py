"""Split the linears of a graph that edgelr did not trace into two.

1. MatMul::

       x ── MatMul(W) ── y      becomes      x ── MatMul(down) ── MatMul(up) ── y

2. Gemm, whose bias, alpha and beta stay with the second product::

       x ── Gemm(W, b) ── y     becomes      x ── MatMul(down) ── Gemm(up, b) ── y

3. Conv, whose strides and padding stay with the first: what is padded is zero after it, too::

       x ── Conv(W, b) ── y     becomes      x ── Conv(down) ── Conv(up, b) ── y

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
    kernel, dtype = (1,) * (len(stored.shape) - 2), stored.dtype.numpy()
    first = factors.down.T if kernel else factors.down
    second = factors.up.T if linear.transposed else factors.up
    down = _store_new(graph, f"{name}.down", first.reshape(*first.shape, *kernel).astype(dtype))
    up = _store_new(graph, f"{name}.up", second.reshape(*second.shape, *kernel).astype(dtype))
    for index, node in enumerate(linear.nodes):
        suffix = f".{index}" if index else ""
        node.replace_input_with(0, _first(node, down, f"{name}/down{suffix}", bool(kernel)))
        node.replace_input_with(1, up)
    graph.initializers.pop(linear.weight.name or "", None)


def _first(node: ir.Node, down: ir.Value, name: str, is_conv: bool) -> ir.Value:
    """Insert the product with ``down`` before ``node``, which loses what belongs to positions."""
    attributes = list(node.attributes.values()) if is_conv else []
    op_type = "Conv" if is_conv else "MatMul"
    first = ir.Node("", op_type, [node.inputs[0], down], attributes, name=name)
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
