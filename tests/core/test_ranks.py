"""Rank correlation: that of scipy, and what it says of numbers that sort nothing."""

from __future__ import annotations

import numpy as np
import pytest

from edgelr.core.ranks import same_order, spearman, spearman_interval


def test_spearman_of_ties_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    first, second = generator.integers(5, size=40), generator.integers(5, size=40)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert spearman(first, -first) == pytest.approx(-1)


def test_a_constant_sorts_nothing() -> None:
    assert spearman(np.arange(9.0), np.full(9, -8.0)) == 0


def test_the_order_of_every_pair_is_counted_where_there_is_one() -> None:
    assert same_order(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])) == 2 / 3
    assert same_order(np.array([1.0, 1.0, 3.0]), np.array([5.0, 4.0, 6.0])) == 1
    assert same_order(np.ones(3), np.arange(3.0)) == 1


def test_the_interval_is_narrower_of_more_pairs() -> None:
    generator = np.random.default_rng(1)
    first = generator.standard_normal(400)
    second = first + 0.3 * generator.standard_normal(400)
    few, many = (spearman_interval(first[:n], second[:n]) for n in (25, 400))
    assert few is not None
    assert many is not None
    assert -1 <= few.low < many.low < spearman(first, second) < many.high <= 1
    assert spearman_interval(first[:1], second[:1]) is None
