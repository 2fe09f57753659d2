"""How sure a figure is: intervals hold what they promise, and narrow with the sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgelr.core.intervals import (
    BLOCK_TOKENS,
    change_interval,
    figure_interval,
    in_blocks,
    mean_interval,
    share_interval,
    surely_below,
    upper_end,
    wilson,
)


def covered(units: int, trials: int = 400) -> float:
    """How often the interval of skewed values holds their true mean."""
    generator = np.random.default_rng(units)
    found = [mean_interval(generator.gamma(4.0, 0.25, units)) for _ in range(trials)]
    return float(np.mean([each is not None and each.low <= 1 <= each.high for each in found]))


@pytest.mark.parametrize("units", [6, 16, 64])
def test_nineteen_of_twenty_intervals_hold_the_mean(units: int) -> None:
    assert 0.91 <= covered(units) <= 0.98


def test_an_interval_narrows_with_the_root_of_the_sample() -> None:
    values = np.random.default_rng(0).standard_normal(1600)
    few, many = mean_interval(values[:100]), mean_interval(values)
    assert few is not None
    assert many is not None
    assert (few.units, many.units) == (100, 1600)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.2)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    assert mean_interval(values) == mean_interval(values)


def test_weights_count_a_unit_as_often() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    found = mean_interval(values, np.array([3.0] * 20 + [1.0] * 20))
    assert found is not None
    mean = (3 * values[:20].sum() + values[20:].sum()) / 80
    assert found.low < mean < found.high


def test_two_units_are_the_fewest_that_tell_anything() -> None:
    """Their interval is wide: it reaches beyond both."""
    for found in (mean_interval([0.2, 0.4]), figure_interval(lambda p: 0.2 + 0.2 * p.mean(), 2)):
        assert found is not None
        assert found.units == 2
        assert found.low < 0.2 < 0.4 < found.high
        assert (found.low + found.high) / 2 == pytest.approx(0.3)


def test_one_unit_tells_nothing_and_a_ruined_model_all() -> None:
    assert mean_interval([0.3]) is None
    assert upper_end([0.3]) == 0.3
    assert share_interval(np.array([True]), 1) is None
    assert upper_end([1.0, math.inf]) == math.inf
    assert math.isnan(upper_end([1.0, math.nan]))


def test_a_share_without_an_error_is_not_sure() -> None:
    """Resampling sees none; that 50 of 50 agree is to be expected of 93 % as well."""
    found = share_interval(np.ones(50, bool), 50)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(wilson(1.0, 50)[0]), 1.0)
    assert found.low == pytest.approx(50 / (50 + 1.96**2), abs=1e-4)


@pytest.mark.parametrize(("limit", "count"), [(0.02, 500), (0.1, 40), (0.5, 7)])
def test_a_share_is_surely_below_where_its_interval_ends(limit: float, count: int) -> None:
    assert wilson(surely_below(limit, count), count)[1] == pytest.approx(limit)
    assert surely_below(0.001, 10) == 0  # so few never show it


def test_errors_in_few_texts_widen_a_share() -> None:
    """Twenty errors of one text say less than twenty of twenty texts."""
    spread, together = np.ones((50, 20), bool), np.ones((50, 20), bool)
    spread[:20, 0] = False
    together[0] = False
    first, second = (share_interval(each.ravel(), 50) for each in (spread, together))
    assert first is not None
    assert second is not None
    assert second.low < first.low


def test_the_interval_of_a_mean_is_that_of_any_figure() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    assert figure_interval(lambda places: float(values[places].mean()), 40) == mean_interval(values)
    assert figure_interval(lambda places: 0.0, 1) is None


def test_a_change_that_nothing_shows_is_not_sure() -> None:
    """Agreement of 100 of 100 decisions leaves room for a change of some percent."""
    right = np.arange(100) % 3 > 0
    found = change_interval(right, right, 100)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(-1.96 / 102, abs=1e-4), -found.low)


def test_nineteen_of_twenty_intervals_hold_the_change() -> None:
    """Of pairs that both get wrong or right as a rule: five become right, two wrong, of a 100."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(300):
        drawn = generator.random(200)
        before, after = drawn < 0.7, (drawn < 0.68) | (drawn > 0.95)
        found = change_interval(before, after, 200)
        held += found is not None and found.low <= 0.03 <= found.high
    assert 0.91 <= held / 300 <= 1.0


def test_rows_are_cut_into_blocks_that_hold_every_token() -> None:
    rows = [np.arange(300.0), np.arange(5.0)]
    means, tokens = in_blocks(rows)
    assert tokens.tolist() == [100, 100, 100, 5]
    assert max(tokens) <= BLOCK_TOKENS
    assert (means * tokens).sum() == pytest.approx(sum(row.sum() for row in rows))
