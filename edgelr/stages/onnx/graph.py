"""The graph that a source stands for: an ``.onnx`` file, or a torch module that is traced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelr.core.cache import digest, write_atomically
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.data.tensors import Samples, count, load_samples
from edgelr.runtime.session import open_session

TRACED_LIMIT = 1e-3  # largest difference to the module, as a share of its largest output


@dataclass(frozen=True)
class Graph:
    """A graph file, and the inputs that came with it, if any did."""

    path: Path
    inputs: Path | None = None


def open_graph(name: str, run: Run) -> Graph:
    """Find the graph of ``name``; a module is traced every time: its code may have changed.

    Args:
        name: an ``.onnx`` file, or ``package.module:factory``.
        run: cache that keeps a traced graph.

    Raises:
        InputError: the name is neither, or the graph of a module does not answer like it.
    """
    if name.endswith(".onnx"):
        return Graph(Path(name))
    if ":" not in name:
        raise InputError(
            f"{name} has no inputs and outputs that --task tensors knows; expected an .onnx file, "
            f"or package.module:factory that returns (torch module, example inputs). Write such a "
            f"function, which may load any model."
        )
    from edgelr.model.torch_modules import ANSWERS, GRAPH, INPUTS, write_graph

    def write(folder: Path) -> None:
        write_graph(name, folder)
        _require_equal(folder / GRAPH, load_samples(folder / INPUTS), folder / ANSWERS, name)

    folder = run.cache.root / f"module-{digest(name)}"
    write_atomically(folder, write)
    return Graph(folder / GRAPH, folder / INPUTS)


def _require_equal(graph: Path, inputs: Samples, answers: Path, name: str) -> None:
    """Compare a traced graph with its module, on the samples that it was traced with."""
    with np.load(answers, allow_pickle=False) as file:
        expected = {key: file[key] for key in file.files}
    runner = open_session(graph)
    for index in range(min(map(count, (inputs, expected)))):
        fed = {key: array[[index]] for key, array in inputs.items()}
        outputs, _ = runner.run(fed, list(expected))
        for (key, wanted), found in zip(expected.items(), outputs, strict=True):
            error = float(np.abs(found - wanted[index]).max(initial=0.0))
            largest = float(np.abs(wanted).max(initial=0.0))
            if not error <= TRACED_LIMIT * largest:
                raise InputError(
                    f"The graph that torch made of {name} differs from the module by {error:.2e} "
                    f"in {key}, whose largest value is {largest:.2e}. Expected the same answers to "
                    f"a sample alone: a module that draws random numbers has none. Give an .onnx "
                    f"file that is right."
                )
