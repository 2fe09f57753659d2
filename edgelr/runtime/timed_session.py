"""One bundle that is timed run by run, without its tokenizer: nothing else should take memory."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import OperatorTime
from edgelr.runtime.requests import ON_CPU, RANDOM_INPUTS, Execution, TimedInputs, TimedPhase
from edgelr.runtime.runners import runner_of


class TimedSession:
    """A bundle that is open; decoding starts from caches that are kept.

    Args:
        bundle: bundle that is timed.
        execution: provider and threads.
        inputs: inputs of the runs.
    """

    def __init__(
        self, bundle: ExportBundle, execution: Execution, inputs: TimedInputs = RANDOM_INPUTS
    ) -> None:
        self._runner = runner_of(bundle).open(bundle, execution, tokenizer=False)
        self._inputs = inputs
        self.session = self._runner.session

    def run_ms(self, phase: TimedPhase) -> float:
        """Run a phase once; return the milliseconds from its inputs to the outputs on the host."""
        run = self._runner.prepare(phase, self._inputs)
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3


def operators(
    bundle: ExportBundle, tokens: int, execution: Execution = ON_CPU, runs: int = 10
) -> list[OperatorTime]:
    """Profile the reading of ``tokens``: where every operator ran, and how long it took.

    Of an encoder-decoder: a step of the decoder. Of a dual encoder: an image.
    """
    phase = runner_of(bundle).profiled_phase(bundle, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        profiled = replace(execution, profile=Path(scratch) / "nodes")
        timed = TimedSession(bundle, profiled)
        for _ in range(runs):
            timed.run_ms(phase)
        return timed.session.end_profile()
