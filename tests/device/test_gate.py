"""The accuracy gate: one number, and the figure that it limits."""

from __future__ import annotations

import math

import pytest

from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Task
from edgelr.device.gate import loss_limit, make_gate, profile_drop
from edgelr.device.profile import load_profile, profile_names
from edgelr.report.figures import UNDECIDED, gate_sentence

every_profile = pytest.mark.parametrize("name", profile_names())


def perplexity(value: float, baseline: float | None = 20.0) -> tuple[Metric, ...]:
    other = Metric("kl_divergence", 0.5, None, 10)
    return (other, Metric("perplexity", value, baseline, 10))


def cosine(value: float) -> tuple[Metric, ...]:
    return (Metric("mean_cosine", value, None, 10), Metric("min_cosine", -1.0, None, 10))


@pytest.mark.parametrize(
    ("value", "passed"), [(15.0, True), (22.0, True), (22.001, False), (math.nan, False)]
)
def test_a_decoders_perplexity_may_rise_by_its_share(value: float, passed: bool) -> None:
    gate = make_gate("text-generation", perplexity(value), 0.1)
    assert (gate.metric, gate.higher_is_better) == ("perplexity", False)
    assert gate.limit == pytest.approx(22.0)
    assert gate.passed == passed


@pytest.mark.parametrize(
    ("value", "passed"), [(1.0, True), (0.98, True), (0.9799, False), (math.nan, False)]
)
def test_an_encoders_cosine_may_fall_by_its_drop(value: float, passed: bool) -> None:
    gate = make_gate("feature-extraction", cosine(value), 0.02)
    assert (gate.metric, gate.limit, gate.higher_is_better) == ("mean_cosine", 0.98, True)
    assert gate.passed == passed


@pytest.mark.parametrize(
    ("high", "passed", "undecided"), [(21.9, True, False), (22.1, False, True)]
)
def test_the_bad_end_of_the_interval_decides(high: float, passed: bool, undecided: bool) -> None:
    metric = Metric("perplexity", 21.0, 20.0, 1000, interval=Interval(20.5, high, 8))
    gate = make_gate("text-generation", (metric,), 0.1)
    assert (gate.worst, gate.passed, gate.undecided) == (high, passed, undecided)
    assert (UNDECIDED in gate_sentence(gate)) == undecided


def test_the_bad_end_of_a_cosine_is_its_lower_one() -> None:
    metric = Metric("mean_cosine", 0.99, None, 10, interval=Interval(0.97, 0.995, 10))
    gate = make_gate("feature-extraction", (metric,), 0.02)
    assert (gate.worst, gate.passed, gate.undecided) == (0.97, False, True)


def test_a_figure_outside_the_limit_is_decided() -> None:
    metric = Metric("perplexity", 23.0, 20.0, 1000, interval=Interval(21.0, 25.0, 8))
    gate = make_gate("text-generation", (metric,), 0.1)
    assert not gate.passed
    assert not gate.undecided


def test_without_a_baseline_no_perplexity_passes() -> None:
    assert not make_gate("text-generation", perplexity(1.0, baseline=None), 0.1).passed


def test_the_limit_of_a_decoder_is_in_nats() -> None:
    """A loss that rises by the limit raises the perplexity by just the drop."""
    for drop in (0.01, 0.1, 1.0):
        before, after = math.exp(3.0), math.exp(3.0 + loss_limit(drop, "text-generation"))
        assert make_gate("text-generation", perplexity(after, before), drop + 1e-12).passed
        assert not make_gate("text-generation", perplexity(after * 1.001, before), drop).passed


def test_the_limit_of_an_encoder_is_a_cosine_distance() -> None:
    assert loss_limit(0.02, "feature-extraction") == 0.02


@every_profile
@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_every_profile_lets_some_drop_through(name: str, task: Task) -> None:
    drop = profile_drop(load_profile(name), task)
    assert 0 < drop < 1
    assert loss_limit(drop, task) > 0


@every_profile
def test_a_profiles_cosine_is_the_limit_of_its_gate(name: str) -> None:
    device = load_profile(name)
    drop = profile_drop(device, "feature-extraction")
    gate = make_gate("feature-extraction", cosine(device.gate.min_mean_cosine.value), drop)
    assert gate.limit == pytest.approx(gate.value, abs=1e-12)
    assert gate.passed
