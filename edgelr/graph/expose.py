"""Variants of a graph that show its inside: inputs of linears as outputs, weights as inputs.

Both are written beside the graph that they come from, and share its file of weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from edgelr.graph.linears import open_foreign


def expose_values(source: Path, target: Path, names: Iterable[str]) -> None:
    """Write the graph with values of its main graph as its only outputs.

    Args:
        source: a graph; inputs of its linears have the type of their weights.
        target: in the same folder.
        names: of the values.
    """
    model = open_foreign(source)
    wanted = set(names)
    found: dict[str, ir.Value] = {}
    for value in _values(model.graph):
        if value.name in wanted:
            found[value.name] = value
    model.graph.outputs.clear()
    for name in sorted(wanted):
        model.graph.outputs.append(found[name])
    ir.save(model, target)


def open_weights(source: Path, target: Path, names: Iterable[str]) -> None:
    """Write the graph with weights that can be fed, and have their values where they are not.

    Args:
        source: a graph.
        target: in the same folder.
        names: of initializers.
    """
    model = open_foreign(source)
    # Since the fourth version of the format, an initializer that is also an input is a default.
    model.ir_version = max(4, model.ir_version)
    for name in names:
        model.graph.inputs.append(model.graph.initializers[name])
    ir.save(model, target)


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
