"""Inputs of a graph: names, types and shapes, and numbers of rows of the tables that they index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgelr.data.tensors import GraphInput

_TABLES = {"Gather": {1: 0}, "EmbedLayerNormalization": {0: 2, 1: 4}}
"""Inputs that are indices, and the input that holds the table which they index, by operator."""

_SAME_VALUES = [
    "Cast",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
]


def read_inputs(model: ir.Model) -> list[GraphInput]:
    """List the inputs of a graph. Weights are no inputs."""
    return [
        GraphInput(
            name=value.name or "",
            dtype=_dtype(value),
            shape=tuple(_size(size) for size in value.shape or ()),
            rows=min(_rows(value), default=None),
        )
        for value in model.graph.inputs
    ]


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    if value.dtype is None or value.dtype == ir.DataType.STRING:
        return np.dtype(np.object_)
    return np.dtype(value.dtype.numpy())


def _size(size: int | ir.SymbolicDim) -> int | str | None:
    return size if isinstance(size, int) else size.value


def _rows(value: ir.Value) -> Iterator[int]:
    """Numbers of rows of the tables that a value indexes, directly or reshaped."""
    for node, index in value.uses():
        table = _TABLES.get(node.op_type, {}).get(index)
        if table is not None:
            yield from _table_rows(node, table)
        elif node.op_type in _SAME_VALUES and index == 0:
            yield from _rows(node.outputs[0])


def _table_rows(node: ir.Node, index: int) -> Iterator[int]:
    table = node.inputs[index] if len(node.inputs) > index else None
    if table is None or table.const_value is None:
        return
    yield table.const_value.shape.numpy()[node.attributes.get_int("axis", 0)]
