"""Time small graphs on random inputs."""

from __future__ import annotations

import time

import numpy as np

from edgelr.core.vocabulary import MIB, Progress
from edgelr.runtime.requests import ON_CPU, Execution, Probe
from edgelr.runtime.session import open_session

_ROUNDS = 3
_WARM_UPS = 1
_REPETITIONS, _SECONDS = 3, 0.1  # of every graph and round, at least
_EVICTED_BYTES = 128 * MIB  # more than the caches of a processor hold


def time_graph(probe: Probe, execution: Execution) -> list[float]:
    """Measure the median seconds of one run, for each set of input shapes."""
    session = open_session(probe.path, execution)
    fetch, cached = list(session.outputs), np.ones(_EVICTED_BYTES if probe.cold else 1, np.uint8)
    generator, found = np.random.default_rng(0), []
    for sizes in probe.shapes:
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
    probes: list[Probe], execution: Execution = ON_CPU, progress: Progress | None = None
) -> list[list[float]]:
    """Time several graphs one after the other and again; return the seconds of every shape.

    What else a machine does makes it slower for seconds; the fastest round is closest to what it
    does when it is left alone.
    """
    rounds = []
    for done in range(_ROUNDS * len(probes)):
        rounds.append(time_graph(probes[done % len(probes)], execution))
        if progress:
            progress("kernels", done + 1, _ROUNDS * len(probes))
    by_probe = (rounds[index :: len(probes)] for index in range(len(probes)))
    return [[min(times) for times in zip(*found, strict=True)] for found in by_probe]
