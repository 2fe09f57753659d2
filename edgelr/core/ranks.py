"""Orders of numbers: whether two models sort the same things alike."""

from __future__ import annotations

import numpy as np

from edgelr.core.intervals import figure_interval
from edgelr.core.results import Interval
from edgelr.core.vocabulary import Array


def spearman(first: Array, second: Array) -> float:
    """Compute Spearman's rank correlation of two vectors ``(n,)``; ties share their mean rank.

    Where all numbers of a vector are equal, nothing is sorted: 0.
    """
    one, other = _ranks(first), _ranks(second)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def spearman_interval(first: Array, second: Array) -> Interval | None:
    """Find the interval of the rank correlation of things that are resampled one by one."""
    found = figure_interval(lambda places: spearman(first[places], second[places]), len(first))
    return found and Interval(max(-1.0, found.low), min(1.0, found.high), found.units)


def same_order(first: Array, second: Array) -> float:
    """Find the share of pairs of different numbers that both vectors put in one order."""
    signs = [np.sign(values[:, None] - values) for values in (first, second)]
    different = signs[0] != 0
    return float((signs[0] == signs[1])[different].mean()) if different.any() else 1.0


def _ranks(values: Array) -> Array:
    """Rank ``values`` from 1; equal values get the mean of the ranks that they span."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Array = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[inverse]
