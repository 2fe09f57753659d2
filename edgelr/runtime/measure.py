"""How fast and how big, in fresh processes. Two bundles are timed in turns.

A machine's speed drifts. Each repetition times the dense graph and then the bundle, so that the
ratio of one repetition compares neighbours in time; the median over the repetitions is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.inputs import Matching
from edgelr.core.measurement import Comparison, Measurement, MemoryUse, PhaseLatency, phase_key
from edgelr.core.vocabulary import Phase, Progress
from edgelr.data.tensors import SAMPLES
from edgelr.runtime.memory_cap import predict_peak
from edgelr.runtime.worker_client import PIECE_TOKENS, Opened, Worker

_WARM_UPS = 2  # the first run allocates, the second still meets cold caches
_FORWARD_BATCHES = (1, 8)
_FORWARD_TOKENS = 128
_TEXT_TOKENS = 16  # a prompt is a few words

Times = list[list[float]]
"""Milliseconds of one phase, by bundle and repetition."""


@dataclass(frozen=True, slots=True)
class TimedPhase:
    """What one timed run does."""

    phase: Phase
    batch: int
    tokens: int
    context_tokens: int

    @property
    def key(self) -> str:
        """Name in ``Comparison.ratios``."""
        return phase_key(self.phase, self.batch, self.tokens, self.context_tokens)


def measure(
    dense: ExportBundle,
    bundle: ExportBundle,
    provider: str = "cpu",
    threads: int | None = None,
    prefill_tokens: Sequence[int] = (128,),
    context_tokens: Sequence[int] = (128,),
    repetitions: int = 10,
    progress: Progress | None = None,
) -> Comparison:
    """Compare a bundle with its dense export.

    Args:
        dense: the dense export, of the same route and precision.
        bundle: the bundle.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core.
        prefill_tokens: prompt lengths of a decoder.
        context_tokens: tokens before the one that a decoder decodes.
        repetitions: timed runs of each phase, after two that do not count.
        progress: called after each repetition.

    Raises:
        InputError: the two have different tasks, or a length exceeds the model's context.
        ProviderError: the provider would not really be used.
    """
    phases = _phases(dense, prefill_tokens, context_tokens)
    if phases != _phases(bundle, prefill_tokens, context_tokens):
        raise InputError(
            f"{dense.folder} is for {dense.manifest.task}, {bundle.folder} for "
            f"{bundle.manifest.task}. Expected one task. Compare a bundle with its dense export."
        )
    pair = (dense, bundle)
    measurements, times = _measure(pair, phases, provider, threads, repetitions, progress)
    ratios = {
        phase.key: float(np.median(np.divide(bundle_ms, dense_ms)))
        for phase, (dense_ms, bundle_ms) in zip(phases, times, strict=True)
    }
    return Comparison(measurements[0], measurements[1], ratios)


def measure_one(
    bundle: ExportBundle,
    provider: str = "cpu",
    threads: int | None = None,
    prefill_tokens: Sequence[int] = (128,),
    context_tokens: Sequence[int] = (128,),
    repetitions: int = 10,
    progress: Progress | None = None,
) -> Measurement:
    """Measure one bundle alone; the arguments are those of ``measure``."""
    phases = _phases(bundle, prefill_tokens, context_tokens)
    return _measure((bundle,), phases, provider, threads, repetitions, progress)[0][0]


def _phases(
    bundle: ExportBundle, prefill_tokens: Sequence[int], context_tokens: Sequence[int]
) -> list[TimedPhase]:
    limit = bundle.manifest.context_tokens
    if bundle.manifest.task == "tensors":
        return [TimedPhase("forward", 1, 0, 0)]
    if bundle.manifest.matching is not None:
        images = [TimedPhase("forward", batch, limit, 0) for batch in _FORWARD_BATCHES]
        return [*images, TimedPhase("text", 1, _text_tokens(bundle.manifest.matching), 0)]
    if bundle.encoder_path is not None:
        tokens = bundle.manifest.source_tokens(_FORWARD_TOKENS)
        steps = [0, *(min(count, limit - 1) for count in context_tokens)]
        decodes = [TimedPhase("decode", 1, 1, count) for count in dict.fromkeys(steps)]
        return [TimedPhase("forward", 1, tokens, 0), *decodes]
    if bundle.manifest.task != "text-generation":
        tokens = bundle.manifest.tokens_read(_FORWARD_TOKENS)
        return [TimedPhase("forward", batch, tokens, 0) for batch in _FORWARD_BATCHES]
    if max(*prefill_tokens, *(count + 1 for count in context_tokens)) > limit:
        raise InputError(
            f"Asked to prefill {[*prefill_tokens]} and to decode at {[*context_tokens]} tokens. "
            f"Expected no more than the {limit:,} tokens of {bundle.folder}. Ask for fewer."
        )
    prefills = [TimedPhase("prefill", 1, count, 0) for count in prefill_tokens]
    return prefills + [TimedPhase("decode", 1, 1, count) for count in context_tokens]


def _text_tokens(matching: Matching) -> int:
    """Tokens of a text: of a short one, where its length is its own."""
    return matching.tokens if matching.padded else min(_TEXT_TOKENS, matching.tokens)


def _measure(
    bundles: Sequence[ExportBundle],
    phases: Sequence[TimedPhase],
    provider: str,
    threads: int | None,
    repetitions: int,
    progress: Progress | None,
) -> tuple[list[Measurement], list[Times]]:
    """Time all phases of all bundles, each bundle in a process of its own."""
    inputs = bundles[-1].folder / SAMPLES  # of a bundle of tensors: the same for its original
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in bundles]
        opened = [
            worker.open(bundle, provider, threads, inputs=inputs)
            for worker, bundle in zip(workers, bundles, strict=True)
        ]
        times = [_alternate(workers, phase, repetitions, progress) for phase in phases]
        memories = [
            _memory(worker, start, bundle, provider, phases)
            for worker, start, bundle in zip(workers, opened, bundles, strict=True)
        ]
    latencies = [tuple(map(_latency, phases, by_phase)) for by_phase in zip(*times, strict=True)]
    parts = zip(bundles, opened, latencies, memories, strict=True)
    return [_measurement(*part) for part in parts], times


def _alternate(
    workers: Sequence[Worker], phase: TimedPhase, repetitions: int, progress: Progress | None
) -> Times:
    times: Times = [[] for _ in workers]
    for repetition in range(-_WARM_UPS, repetitions):
        for worker, found in zip(workers, times, strict=True):
            sizes = (phase.batch, phase.tokens, phase.context_tokens)
            milliseconds = worker.run_ms(phase.phase, *sizes)
            if repetition >= 0:
                found.append(milliseconds)
        if progress and repetition >= 0:
            progress(f"measure {phase.key}", repetition + 1, repetitions)
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


def _memory(
    worker: Worker,
    opened: Opened,
    bundle: ExportBundle,
    provider: str,
    phases: Sequence[TimedPhase],
) -> MemoryUse:
    found = worker.memory()
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
