"""Names of phases and sums of memory: what reports and comparisons look figures up by."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from edgelr.core.measurement import CapCheck, MemoryUse, PhaseLatency, phase_key
from edgelr.core.vocabulary import Phase

MEMORY = MemoryUse(300, 77, 411, 33)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (("prefill", 1, 128, 0), "prefill 128"),
        (("decode", 1, 1, 512), "decode 512"),
        (("decode", 4, 1, 512), "decode 4x512"),
        (("forward", 8, 128, 0), "forward 8x128"),
        (("text", 1, 16, 0), "text 16"),
        (("forward", 1, 0, 0), "forward"),
    ],
)
def test_a_phase_is_named_by_what_grows(given: tuple[Phase, int, int, int], key: str) -> None:
    phase, batch, tokens, context = given
    assert phase_key(*given) == key
    assert PhaseLatency(phase, batch, tokens, context, 9, 1.0, 2.0, 3.0, 4.0).key == key


def test_no_two_phases_share_a_name() -> None:
    keys = [
        phase_key(phase, batch, 1 if phase == "decode" else length, length)
        for phase, batch, length in product(get_args(Phase), (1, 2, 12), (1, 16, 128))
    ]
    assert len(set(keys)) == len(keys)


def test_the_peak_is_that_of_the_memory_that_was_predicted() -> None:
    assert MEMORY.most_bytes == MEMORY.peak_bytes
    assert replace(MEMORY, gpu_bytes=5).most_bytes == 5


def test_a_bundle_ran_where_it_had_no_problem() -> None:
    ran = CapCheck(1000, "cgroup", None, 900, 2048, 512, "")
    assert ran.passed
    assert not replace(ran, problem="killed").passed
