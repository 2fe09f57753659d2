"""Requests are values, with the usual ones as defaults."""

from __future__ import annotations

from edgelr.runtime.requests import (
    ON_CPU,
    RANDOM_INPUTS,
    USUAL_SIZES,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)


def test_the_usual_is_what_is_not_named() -> None:
    assert (Execution(), PhaseSizes(), TimedInputs()) == (ON_CPU, USUAL_SIZES, RANDOM_INPUTS)
    assert (ON_CPU.provider, ON_CPU.threads, ON_CPU.memory_bytes) == ("cpu", None, None)


def test_a_phase_has_the_key_of_its_figures() -> None:
    keys = [
        TimedPhase("prefill", 1, 128).key,
        TimedPhase("decode", 1, 1, 512).key,
        TimedPhase("forward", 8, 77).key,
        TimedPhase("forward", 1, 0).key,
    ]
    assert keys == ["prefill 128", "decode 512", "forward 8x77", "forward"]
