"""How fast and how big, in fresh processes. Two bundles are timed in turns.

A machine's speed drifts. Each repetition times both, and who is first changes, so that pairs are
neighbours in time. The ratio of the medians is reported, with its interval over the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.intervals import PROCESSES_DIFFER, figure_interval
from edgelr.core.measurement import Comparison, Measurement, MemoryUse, PhaseLatency
from edgelr.core.results import Interval
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.tensors import SAMPLES
from edgelr.runtime.busy import OTHERS_LIMIT, busy_notes, snapshot, taken_by_others
from edgelr.runtime.memory_cap import predict_peak
from edgelr.runtime.requests import (
    ON_CPU,
    PIECE_TOKENS,
    USUAL_SIZES,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)
from edgelr.runtime.runners import runner_of
from edgelr.runtime.worker_client import Opened, Worker

REPETITIONS = 10
MOST_LOST = 0.9  # of the cores, to others: what little is left still tells ten times from one
SAME_GRAPH = "Both folders hold the same graph: what differs between their times is the machine."
_WARM_UPS = 2  # the first run allocates, the second still meets cold caches

Times = list[list[float]]
"""Milliseconds of one phase, by bundle and repetition."""


def measure(
    dense: ExportBundle,
    bundle: ExportBundle,
    execution: Execution = ON_CPU,
    sizes: PhaseSizes = USUAL_SIZES,
    repetitions: int = REPETITIONS,
    progress: Progress | None = None,
    samples: Path | None = None,
) -> Comparison:
    """Compare a bundle with its dense export.

    Args:
        dense: dense export, of the same route and precision.
        bundle: bundle that is compared with it.
        execution: provider and threads of both.
        sizes: lengths at which a decoder is timed.
        repetitions: timed runs of each phase, after two that do not count.
        progress: callback after each repetition.
        samples: file of inputs for graphs that read no tokens; None takes that in the bundle.

    Raises:
        InputError: the two have different tasks, or a length exceeds the model's context.
        ProviderError: the provider would not really be used.
    """
    if dense.manifest.task != bundle.manifest.task:
        raise InputError(
            f"{dense.folder} is for {dense.manifest.task}, {bundle.folder} for "
            f"{bundle.manifest.task}. Expected one task. Compare a bundle with its dense export."
        )
    both = (runner_of(each).phases(each, sizes) for each in (dense, bundle))
    phases = min(both, key=lambda found: max(phase.tokens for phase in found))  # what both can read
    timing = _Timing(phases, execution, repetitions, progress, samples or bundle.folder / SAMPLES)
    found, times, notes, others = _measure((dense, bundle), timing)
    ratios = {
        phase.key: phase.p50_ms / before.p50_ms
        for before, phase in zip(found[0].phases, found[1].phases, strict=True)
    }
    intervals = {
        phase.key: interval
        for phase, pair in zip(phases, times, strict=True)
        if (interval := ratio_interval(pair[0], pair[1], others)) is not None
    }
    if graph_hashes(dense) == graph_hashes(bundle) != {}:
        intervals = {key: _around_1(interval) for key, interval in intervals.items()}
        notes = (*notes, SAME_GRAPH)
    return Comparison(found[0], found[1], ratios, intervals, notes)


def graph_hashes(bundle: ExportBundle) -> dict[str, str]:
    """Look up the hashes of a bundle's graphs and weights, by the names of their files."""
    files = ((Path(file.path), file.sha256) for file in bundle.manifest.files)
    return {path.name: found for path, found in files if ".onnx" in path.suffixes}


def _around_1(found: Interval) -> Interval:
    return Interval(min(found.low, 1.0), max(found.high, 1.0), found.units)


def ratio_interval(
    dense_ms: Sequence[float], bundle_ms: Sequence[float], others: float = 0.0
) -> Interval | None:
    """Find where the ratio of two medians lies, with 95 % confidence.

    Pairs of neighbours are resampled. What makes one process slower than another as long as it
    runs, such as where its memory lies, is in no sample: ``PROCESSES_DIFFER`` moves the ends. On a
    busy machine one of the two may have lost all that other processes took: that moves them, too.

    Args:
        dense_ms: times of the dense graph, by repetition.
        bundle_ms: times of the bundle, by repetition.
        others: share of the cores that other processes took.
    """
    dense, bundle = np.array(dense_ms), np.array(bundle_ms)

    def ratio(places: Array) -> float:
        return float(np.median(bundle[places]) / np.median(dense[places]))

    found = figure_interval(ratio, len(dense))
    if found is None:
        return None
    lost = min(others, MOST_LOST) if others > OTHERS_LIMIT else 0.0
    wider = (1 + PROCESSES_DIFFER) / (1 - lost)
    return Interval(max(0.0, found.low) / wider, found.high * wider, found.units)


def measure_one(
    bundle: ExportBundle,
    execution: Execution = ON_CPU,
    sizes: PhaseSizes = USUAL_SIZES,
    repetitions: int = REPETITIONS,
    progress: Progress | None = None,
) -> Measurement:
    """Measure one bundle alone; the arguments are those of ``measure``."""
    phases = runner_of(bundle).phases(bundle, sizes)
    timing = _Timing(phases, execution, repetitions, progress, bundle.folder / SAMPLES)
    (found,), _, notes, _ = _measure((bundle,), timing)
    return replace(found, notes=notes)


@dataclass(frozen=True)
class _Timing:
    """What is timed, and how; see ``measure``."""

    phases: Sequence[TimedPhase]
    execution: Execution
    repetitions: int
    progress: Progress | None
    samples: Path


def _measure(
    bundles: Sequence[ExportBundle], timing: _Timing
) -> tuple[list[Measurement], list[Times], tuple[str, ...], float]:
    """Time all phases of all bundles, each bundle in a process of its own.

    Returns:
        Measurements, the times of every phase, notes on what disturbed them, and the share of the
        cores that other processes took.
    """
    inputs = TimedInputs(samples=timing.samples)
    before = snapshot(())  # the kernel counts in hundredths of a second: a short run sees none
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in bundles]
        opened = [
            worker.open(bundle, timing.execution, inputs)
            for worker, bundle in zip(workers, bundles, strict=True)
        ]
        times = [_alternate(workers, phase, timing) for phase in timing.phases]
        after = snapshot(worker.pid for worker in workers)
        memories = [
            _memory(worker, start, bundle, timing)
            for worker, start, bundle in zip(workers, opened, bundles, strict=True)
        ]
    latencies = [
        tuple(map(_latency, timing.phases, by_phase)) for by_phase in zip(*times, strict=True)
    ]
    parts = zip(bundles, opened, latencies, memories, strict=True)
    notes, others = busy_notes(before, after), taken_by_others(before, after)
    return [_measurement(*part) for part in parts], times, notes, others


def _alternate(workers: Sequence[Worker], phase: TimedPhase, timing: _Timing) -> Times:
    times: Times = [[] for _ in workers]
    for repetition in range(-_WARM_UPS, timing.repetitions):
        turns = list(zip(workers, times, strict=True))
        for worker, found in turns[:: -1 if repetition % 2 else 1]:  # none is always the second
            milliseconds = worker.run_ms(phase)
            if repetition >= 0:
                found.append(milliseconds)
        if timing.progress and repetition >= 0:
            timing.progress(f"measure {phase.key}", repetition + 1, timing.repetitions)
    return times


def _latency(phase: TimedPhase, times: Sequence[float]) -> PhaseLatency:
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    return PhaseLatency(
        phase=phase.phase,
        batch=phase.batch,
        tokens=phase.tokens,
        context_tokens=phase.context_tokens,
        repetitions=len(times),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        tokens_per_second=phase.batch * phase.tokens / p50 * 1e3,
    )


def _memory(worker: Worker, opened: Opened, bundle: ExportBundle, timing: _Timing) -> MemoryUse:
    found, provider, phases = worker.memory(), timing.execution.provider, timing.phases
    predicted = predict_peak(
        bundle,
        provider,
        opened.baseline_bytes,
        max(phase.batch for phase in phases),
        max(max(phase.tokens, min(phase.context_tokens, PIECE_TOKENS)) for phase in phases),
        max(phase.context_tokens + phase.tokens for phase in phases),
    )
    return MemoryUse(
        found.rss_anon_bytes,
        found.rss_file_bytes,
        found.peak_bytes,
        opened.baseline_bytes,
        predicted,
        worker.gpu_memory() if provider == "cuda" else None,
    )


def _measurement(
    bundle: ExportBundle, opened: Opened, phases: tuple[PhaseLatency, ...], memory: MemoryUse
) -> Measurement:
    return Measurement(
        name=bundle.folder.name,
        provider=opened.provider,
        precision=bundle.manifest.precision,
        threads=opened.threads,
        file_bytes=bundle.weight_bytes,
        load_ms=opened.load_ms,
        phases=phases,
        memory=memory,
    )
