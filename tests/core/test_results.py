"""Verdicts: a limit is inside, and what is not a number never passes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgelr.core.intervals import mean_interval
from edgelr.core.results import DenseParity, Gate, Parity, Validation

PARITY = Parity(1e-4, 1e-3, 2e-4, greedy_prompts=8, greedy_identical=8, greedy_tokens=32)
LOWER = Gate("perplexity", 21.0, 22.0, higher_is_better=False)
HIGHER = Gate("mean_cosine", 0.99, 0.98, higher_is_better=True)


@pytest.mark.parametrize("field", ["max_abs_error", "padded_max_abs_error"])
def test_parity_holds_up_to_its_limit(field: str) -> None:
    assert replace(PARITY, **{field: PARITY.max_abs_error_limit}).passed
    for wrong in (1.01 * PARITY.max_abs_error_limit, math.inf, math.nan):
        assert not replace(PARITY, **{field: wrong}).passed


def test_embeddings_of_a_dense_graph_have_the_length_1() -> None:
    found = DenseParity("torch", 2, 1e-4, 1e-4, largest_output=9.0, vector_max_abs_error=1e-4)
    assert found.passed
    for wrong in (2e-4, math.inf, math.nan):
        assert not replace(found, vector_max_abs_error=wrong).passed


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


@pytest.mark.parametrize(
    ("worst", "samples", "more"),
    [(23.0, 100, 300), (22.5, 1000, 1250), (22.0, 100, None), (23.0, 0, None), (math.nan, 9, None)],
)
def test_the_samples_that_would_decide_are_estimated_from_the_width_of_the_interval(
    worst: float, samples: int, more: int | None
) -> None:
    """Four times as many samples halve an interval."""
    assert replace(LOWER, worst=worst, samples=samples).more_samples == more


def test_a_figure_at_its_limit_is_decided_by_no_number_of_samples() -> None:
    assert replace(LOWER, value=22.0, worst=22.5, samples=100).more_samples is None


def test_the_estimate_is_that_of_a_bootstrap_on_so_many_samples() -> None:
    """Drawn from one distribution, the larger sample decides, as was estimated."""
    drawn = np.random.default_rng(0).normal(0.97, 0.2, 100_000)
    few = drawn[:400]
    interval = mean_interval(few)
    assert interval is not None
    limit = float(few.mean()) - 0.005
    gate = Gate("mean_cosine", float(few.mean()), limit, True, interval.low, len(few))
    assert gate.more_samples is not None
    enough = mean_interval(drawn[: len(few) + gate.more_samples])
    assert enough is not None
    half = (enough.high - enough.low) / 2
    assert half == pytest.approx(0.005, rel=0.15)


@pytest.mark.parametrize("parity", [None, PARITY, replace(PARITY, greedy_identical=0)])
@pytest.mark.parametrize("gate", [None, LOWER, replace(LOWER, value=30.0)])
def test_validation_passes_where_nothing_that_was_checked_failed(
    parity: Parity | None, gate: Gate | None
) -> None:
    found = Validation(parity, (), gate, "float32", "CPUExecutionProvider", "text")
    failed = [each for each in (parity, gate) if each is not None and not each.passed]
    assert found.passed == (not failed)
