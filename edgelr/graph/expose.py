"""Variants of a graph: with inner values as its outputs, or with weights as inputs.

Both lie beside the graph that they come from while they are used, and share its file of weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from edgelr.graph.open import open_foreign


@contextmanager
def showing_values(source: Path, names: Iterable[str]) -> Iterator[Path]:
    """Give a graph that has values of the main graph as its only outputs.

    Args:
        source: graph file, in a folder that can be written.
        names: names of the values.
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
    with _beside(source, model) as path:
        yield path


@contextmanager
def feeding_weights(source: Path, names: Iterable[str]) -> Iterator[Path]:
    """Give a graph whose weights can be fed, and have their values where they are not.

    Args:
        source: graph file, in a folder that can be written.
        names: names of initializers.
    """
    model = open_foreign(source)
    # Since the fourth version of the format, an initializer that is also an input is a default.
    model.ir_version = max(4, model.ir_version)
    for name in names:
        model.graph.inputs.append(model.graph.initializers[name])
    with _beside(source, model) as path:
        yield path


@contextmanager
def _beside(source: Path, model: ir.Model) -> Iterator[Path]:
    """Save a variant under a name of its own, where its external data is found."""
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx", delete=False) as file:
        path = Path(file.name)
    try:
        ir.save(model, path)
        yield path
    finally:
        path.unlink()


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
