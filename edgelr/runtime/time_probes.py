"""Time small graphs on random inputs."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgelr.core.vocabulary import Progress
from edgelr.runtime.session import open_session

_ROUNDS = 3
_WARM_UPS = 1
_REPETITIONS, _SECONDS = 3, 0.1  # of every graph and round, at least
_EVICTED_BYTES = 128 * 2**20  # more than the caches of a processor hold


def time_graph(
    path: Path,
    shapes: list[dict[str, list[int]]],
    cold: bool,
    provider: str,
    threads: int | None,
) -> list[float]:
    """Measure the median seconds of one run, for each set of input shapes.

    Args:
        path: of the graph; it is loaded once.
        shapes: by the name of the input.
        cold: whether caches are emptied before every run: the weights of a whole model would not
            be in them, what a node hands to the next would.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: of one operator; None takes every core.
    """
    session = open_session(path, provider, threads)
    fetch, cached = list(session.outputs), np.ones(_EVICTED_BYTES if cold else 1, np.uint8)
    generator, found = np.random.default_rng(0), []
    for sizes in shapes:
        feeds = {name: generator.standard_normal(size, np.float32) for name, size in sizes.items()}
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < _WARM_UPS + _REPETITIONS or time.perf_counter() < began + _SECONDS:
            cached.max()
            start = time.perf_counter()
            session.run(feeds, fetch)
            times.append(time.perf_counter() - start)
        found.append(float(np.median(times[_WARM_UPS:])))
    return found


def time_graphs(
    progress: Progress,
    jobs: list[tuple[str, list[dict[str, list[int]]], bool]],
    provider: str,
    threads: int | None,
) -> list[list[float]]:
    """Time several graphs, each ``(path, shapes, cold)``, one after the other and again.

    What else a machine does makes it slower for seconds; the fastest round is closest to what it
    does when it is left alone.
    """
    rounds = []
    for done in range(_ROUNDS * len(jobs)):
        path, shapes, cold = jobs[done % len(jobs)]
        rounds.append(time_graph(Path(path), shapes, cold, provider, threads))
        progress("kernels", done + 1, _ROUNDS * len(jobs))
    by_job = (rounds[index :: len(jobs)] for index in range(len(jobs)))
    return [[min(times) for times in zip(*found, strict=True)] for found in by_job]
