"""Verdicts: a limit is inside, and what is not a number never passes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgelr.core.results import Gate, Parity, Validation

PARITY = Parity(1e-4, 1e-3, 2e-4, greedy_prompts=8, greedy_identical=8, greedy_tokens=32)
LOWER = Gate("perplexity", 21.0, 22.0, higher_is_better=False)
HIGHER = Gate("mean_cosine", 0.99, 0.98, higher_is_better=True)


@pytest.mark.parametrize("field", ["max_abs_error", "padded_max_abs_error"])
def test_parity_holds_up_to_its_limit(field: str) -> None:
    assert replace(PARITY, **{field: PARITY.max_abs_error_limit}).passed
    for wrong in (1.01 * PARITY.max_abs_error_limit, math.inf, math.nan):
        assert not replace(PARITY, **{field: wrong}).passed


def test_one_prompt_that_is_answered_otherwise_is_no_parity() -> None:
    assert not replace(PARITY, greedy_identical=7).passed
    assert replace(PARITY, greedy_prompts=0, greedy_identical=0).passed


def test_a_twin_has_a_limit_of_its_own() -> None:
    assert replace(PARITY, twin_max_error=0.05, twin_limit=0.05).passed
    assert not replace(PARITY, twin_max_error=0.051, twin_limit=0.05).passed
    assert not replace(PARITY, twin_max_error=math.nan, twin_limit=0.05).passed
    assert replace(PARITY, twin_limit=0.05).passed


@pytest.mark.parametrize("gate", [LOWER, HIGHER])
def test_the_bad_end_decides_and_the_figure_tells_whether_more_samples_would_help(
    gate: Gate,
) -> None:
    outside = gate.limit + (gate.limit - gate.value)
    assert gate.passed
    assert replace(gate, value=gate.limit).passed
    assert replace(gate, worst=gate.limit).passed
    for worst in (outside, math.nan):
        missed = replace(gate, worst=worst)
        assert (missed.passed, missed.undecided) == (False, True)
    failed = replace(gate, value=outside)
    assert (failed.passed, failed.undecided) == (False, False)


@pytest.mark.parametrize("parity", [None, PARITY, replace(PARITY, greedy_identical=0)])
@pytest.mark.parametrize("gate", [None, LOWER, replace(LOWER, value=30.0)])
def test_validation_passes_where_nothing_that_was_checked_failed(
    parity: Parity | None, gate: Gate | None
) -> None:
    found = Validation(parity, (), gate, "float32", "CPUExecutionProvider", "text")
    failed = [each for each in (parity, gate) if each is not None and not each.passed]
    assert found.passed == (not failed)
