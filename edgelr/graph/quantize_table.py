"""Quantize the table of token embeddings, and a head that is tied to it.

::

    table ─┬─ Gather(ids)                packed ─┬─ GatherBlockQuantized(ids)
           └─ FusedMatMul(x, transB)             └─ Reshape ── MatMulNBits(x)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.compress.block_quantized import Blocks
from edgelr.core.errors import EdgelrError
from edgelr.core.vocabulary import BlockLayout
from edgelr.graph.nodes import constant, insert, quantized_product, replace_node
from edgelr.graph.plain import MICROSOFT

_Tensors: TypeAlias = tuple[ir.Value, ir.Value, ir.Value]  # packed, scales, zero points


@dataclass(frozen=True)
class QuantizeTable(InPlacePass):
    """Replace the nodes that read the table of embeddings.

    1. Gather becomes GatherBlockQuantized.
    2. A tied head becomes the MatMulNBits of the same bytes.

    Attributes:
        name: name of the table's module, for messages and tensors.
        weight: table in float, ``(vocabulary, hidden)``.
        stored: transposed table, quantized.
        accuracy_level: type in which MatMulNBits multiplies a tied head: 1 float32, 4 int8.
    """

    name: str
    weight: np.ndarray
    stored: Blocks
    accuracy_level: int

    def call(self, model: ir.Model) -> PassResult:
        """Replace every reader; the table in float goes.

        Raises:
            EdgelrError: the graph has no such table, or another operator reads it.
        """
        graph, stored = model.graph, self.stored
        table = _find(graph, self.name, self.weight)
        rows = stored.packed.reshape(stored.out_features, -1)
        tensors = (
            constant(graph, f"{self.name}.weight.packed", rows),
            constant(graph, f"{self.name}.weight.scales", stored.scales),
            constant(graph, f"{self.name}.weight.zero_points", stored.zero_points),
        )
        for use in table.uses():
            if use.node.op_type == "Gather":  # case 1
                made = _lookup(use.node, tensors, stored.layout)
            elif use.node.op_type == "FusedMatMul":  # case 2
                made = _head(graph, use.node, stored, tensors, self.accuracy_level)
            else:
                raise EdgelrError(
                    f"The table {self.name} is read by a {use.node.op_type}; edgelr quantizes a "
                    f"table that is gathered from, or multiplied by as a tied head. Export with "
                    f"--precision float32 or float16."
                )
            replace_node(graph, use.node, made)
        graph.initializers.pop(table.name or "")
        return PassResult(model, modified=True)


@dataclass(frozen=True)
class ReplaceTable(InPlacePass):
    """Give the table of embeddings other values, in float.

    Attributes:
        name: name of the table's module, for messages.
        weight: table as it is, ``(vocabulary, hidden)``.
        replacement: table as it becomes.
    """

    name: str
    weight: np.ndarray
    replacement: np.ndarray

    def call(self, model: ir.Model) -> PassResult:
        """Replace the values for every reader.

        Raises:
            EdgelrError: the graph has no such table.
        """
        table = _find(model.graph, self.name, self.weight)
        table.const_value = ir.tensor(np.ascontiguousarray(self.replacement), name=table.name)
        return PassResult(model, modified=True)


def _find(graph: ir.Graph, name: str, weight: np.ndarray) -> ir.Value:
    for value in graph.initializers.values():
        tensor = value.const_value
        if (
            tensor is not None
            and tuple(tensor.shape.numpy()) == weight.shape
            and any(use.node.op_type == "Gather" for use in value.uses())
            and np.array_equal(tensor.numpy(), weight)
        ):
            return value
    raise EdgelrError(
        f"The graph has no table of embeddings that equals {name}: it was traced from another "
        f"model, or a fusion took it. Export with --precision float32 or float16."
    )


def _lookup(gather: ir.Node, tensors: _Tensors, layout: BlockLayout) -> ir.Node:
    packed, scales, zero_points = tensors
    inputs = [packed, gather.inputs[1], scales, zero_points]
    attributes = {"gather_axis": 0, "quantize_axis": 1}
    attributes |= {"block_size": layout.block_size, "bits": layout.bits}
    return ir.node("GatherBlockQuantized", inputs, attributes, domain=MICROSOFT, name=gather.name)


def _head(
    graph: ir.Graph, head: ir.Node, stored: Blocks, tensors: _Tensors, accuracy_level: int
) -> ir.Node:
    """Multiply by the transposed table: MatMulNBits wants the same bytes in other shapes."""
    packed, scales, zero_points = tensors

    def reshaped(value: ir.Value, what: str, *sizes: int) -> ir.Value:
        shape = constant(graph, f"{head.name}/{what}_shape", np.array(sizes, np.int64))
        node = ir.node("Reshape", [value, shape], name=f"{head.name}/{what}")
        return insert(graph, head, node)

    inputs = [
        head.inputs[0],
        reshaped(packed, "packed", *stored.packed.shape),
        scales,
        reshaped(zero_points, "zero_points", -1),
    ]
    return quantized_product(stored, inputs, accuracy_level, head.name or "")
