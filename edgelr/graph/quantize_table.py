"""Store the table of token embeddings, and a head that is tied to it, in whole numbers.

::

    table ── Gather(ids)                 integers ─┬─ GatherBlockQuantized(ids)
          └─ FusedMatMul(x, transB)               └─ Reshape ── MatMulNBits(x)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks
from edgelr.core.errors import EdgelrError
from edgelr.core.vocabulary import BLOCK_SIZE
from edgelr.graph.cleanup import MICROSOFT, constant, insert, product_of_blocks, replace_node


def quantize_table(
    graph: ir.Graph, name: str, weight: np.ndarray, stored: Blocks, accuracy_level: int
) -> None:
    """Replace what reads the table, in place.

    Args:
        graph: with float weights.
        name: of the table, for messages and tensors.
        weight: the table, ``(vocabulary, hidden)``.
        stored: its transpose, rounded.
        accuracy_level: with which MatMulNBits multiplies a tied head.

    Raises:
        EdgelrError: the graph has no such table, or does something else with it.
    """
    table = _find(graph, name, weight)
    outputs = stored.out_features
    packed = constant(graph, f"{name}.weight.packed", stored.packed.reshape(outputs, -1))
    scales = constant(graph, f"{name}.weight.scales", stored.scales)
    zero_points = constant(graph, f"{name}.weight.zero_points", stored.zero_points)
    layout = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK_SIZE, "bits": stored.bits}
    for use in table.uses():
        node = use.node
        if node.op_type == "Gather":
            inputs = [packed, node.inputs[1], scales, zero_points]
            made = ir.node("GatherBlockQuantized", inputs, layout, domain=MICROSOFT, name=node.name)
        elif node.op_type == "FusedMatMul":
            made = _head(graph, node, stored, (packed, scales, zero_points), accuracy_level)
        else:
            raise EdgelrError(
                f"The table {name} is read by a {node.op_type}; edgelr stores a table in whole "
                f"numbers where it is gathered from, or multiplied with as a tied head. Export "
                f"with --precision float32 or float16."
            )
        replace_node(graph, node, made)
    graph.initializers.pop(table.name or "")


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


def _head(
    graph: ir.Graph,
    head: ir.Node,
    stored: Blocks,
    tensors: tuple[ir.Value, ir.Value, ir.Value],
    accuracy_level: int,
) -> ir.Node:
    """The product with the transposed table: MatMulNBits wants the same bytes in other shapes."""
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
    return product_of_blocks(stored, inputs, accuracy_level, head.name or "")
