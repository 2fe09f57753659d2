"""Time small graphs on random inputs."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgelr.evaluators import Progress
from edgelr.runtime.session import open_session

_WARM_UPS = 2
_REPETITIONS, _SECONDS = 5, 0.2  # of every graph, at least


def time_graph(
    path: Path, shapes: list[dict[str, list[int]]], provider: str, threads: int | None
) -> list[float]:
    """Measure the median seconds of one run, for each set of input shapes.

    Args:
        path: of the graph; it is loaded once.
        shapes: by the name of the input.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: of one operator; None takes every core.
    """
    session = open_session(path, provider, threads)
    fetch = list(session.outputs)
    generator, found = np.random.default_rng(0), []
    for sizes in shapes:
        feeds = {name: generator.standard_normal(size, np.float32) for name, size in sizes.items()}
        times: list[float] = []
        while len(times) < _WARM_UPS + _REPETITIONS or sum(times) < _SECONDS:
            start = time.perf_counter()
            session.run(feeds, fetch)
            times.append(time.perf_counter() - start)
        found.append(float(np.median(times[_WARM_UPS:])))
    return found


def time_graphs(
    progress: Progress,
    jobs: list[tuple[str, list[dict[str, list[int]]]]],
    provider: str,
    threads: int | None,
) -> list[list[float]]:
    """Time several graphs one after the other; each is ``(path, shapes)``."""
    found = []
    for done, (path, shapes) in enumerate(jobs, start=1):
        found.append(time_graph(Path(path), shapes, provider, threads))
        progress("kernels", done, len(jobs))
    return found
