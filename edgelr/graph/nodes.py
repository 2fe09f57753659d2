"""Initializers and nodes of a graph: what every pass makes, inserts and replaces."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks

MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register ``array`` as an initializer, or find the one of that name."""
    if name in graph.initializers:
        return graph.initializers[name]
    return store(graph, ir.tensor(array, name=name))


def store(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """Register ``tensor`` as an initializer of its own name."""
    value = ir.val(tensor.name, const_value=tensor)
    graph.register_initializer(value)
    return value


def insert(graph: ir.Graph, before: ir.Node, node: ir.Node) -> ir.Value:
    """Insert ``node`` before another one and return its output, named after the node."""
    node.outputs[0].name = f"{node.name}/output_0"
    graph.insert_before(before, node)
    return node.outputs[0]


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``old``: its first output takes over name, shape and users."""
    ir.convenience.replace_nodes_and_values(
        graph, old, [old], [new], old.outputs[:1], new.outputs[:1]
    )


def multiply_by_transposed(graph: ir.Graph, head: ir.Node, table: ir.Value) -> None:
    """Replace ``head`` by a product with ``table (V, H)`` transposed on the fly."""
    inputs, transposed = [head.inputs[0], table], {"transB": 1}
    fused = ir.node("FusedMatMul", inputs, transposed, domain=MICROSOFT, name=head.name)
    replace_node(graph, head, fused)


def quantized_product(
    stored: Blocks, inputs: list[ir.Value | None], accuracy_level: int, name: str
) -> ir.Node:
    """Make the MatMulNBits of a value, packed integers, scales and zero points."""
    attributes = {
        "K": stored.in_features,
        "N": stored.out_features,
        "bits": stored.layout.bits,
        "block_size": stored.layout.block_size,
        "accuracy_level": accuracy_level,
    }
    return ir.node("MatMulNBits", inputs, attributes, domain=MICROSOFT, name=name)
