"""How fast and how big, in fresh processes. Two bundles are timed in turns.

A machine's speed drifts. Each repetition times the dense graph and then the bundle, so that the
ratio of one repetition compares neighbours in time; the median over the repetitions is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.measurement import Comparison, Measurement, MemoryUse, PhaseLatency
from edgelr.core.vocabulary import Progress
from edgelr.data.tensors import SAMPLES
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
    measurements, times = _measure((dense, bundle), timing)
    ratios = {
        phase.key: float(np.median(np.divide(bundle_ms, dense_ms)))
        for phase, (dense_ms, bundle_ms) in zip(phases, times, strict=True)
    }
    return Comparison(measurements[0], measurements[1], ratios)


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
    return _measure((bundle,), timing)[0][0]


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
) -> tuple[list[Measurement], list[Times]]:
    """Time all phases of all bundles, each bundle in a process of its own."""
    inputs = TimedInputs(samples=timing.samples)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in bundles]
        opened = [
            worker.open(bundle, timing.execution, inputs)
            for worker, bundle in zip(workers, bundles, strict=True)
        ]
        times = [_alternate(workers, phase, timing) for phase in timing.phases]
        memories = [
            _memory(worker, start, bundle, timing)
            for worker, start, bundle in zip(workers, opened, bundles, strict=True)
        ]
    latencies = [
        tuple(map(_latency, timing.phases, by_phase)) for by_phase in zip(*times, strict=True)
    ]
    parts = zip(bundles, opened, latencies, memories, strict=True)
    return [_measurement(*part) for part in parts], times


def _alternate(workers: Sequence[Worker], phase: TimedPhase, timing: _Timing) -> Times:
    times: Times = [[] for _ in workers]
    for repetition in range(-_WARM_UPS, timing.repetitions):
        for worker, found in zip(workers, times, strict=True):
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
