"""How sure a mean is: bootstrap intervals over chunks, texts or images (Efron, 1979).

A figure that compares two models is paired: each unit is resampled with what both make of it, so
that easy and hard text moves the difference and not its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgelr.core.results import Interval
from edgelr.core.vocabulary import Array

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0  # the same figures give the same interval
PROCESSES_DIFFER = 0.02  # that two processes with one graph differ in speed, as long as they run
BLOCK_TOKENS = 128  # of a chunk, resampled together: neighbouring tokens share their text
_Z = 1.959963984540054  # the normal quantile of LEVEL


def mean_interval(values: Sequence[float] | Array, weights: Array | None = None) -> Interval | None:
    """Find the interval of the mean of ``values``, one for each unit.

    Percentiles of resampled means are too close by what a small sample knows less: they are moved
    away from the mean by the bootstrap's lost degree of freedom and by Student's quantile over the
    normal one (Hesterberg, 2015, arXiv:1411.5279), to the first order.

    Args:
        values: ``(units,)``; resampled as they are given.
        weights: ``(units,)``, for instance tokens; None counts every unit once.

    Returns:
        None for a single unit, which tells nothing of its error.
    """
    given = np.asarray(values, np.float64)
    units = len(given)
    if units < 2:
        return None
    weight = np.ones(units) if weights is None else np.asarray(weights, np.float64)
    mean = float((given * weight).sum() / weight.sum())
    if not np.isfinite(mean):  # a ruined model: there is nothing to resample
        return Interval(mean, mean, units)
    drawn = _drawn(units)
    return _percentiles(mean, (given * weight)[drawn].sum(-1) / weight[drawn].sum(-1), units)


def figure_interval(figure: Callable[[Array], float], units: int) -> Interval | None:
    """Find the interval of what is no mean: a median, or a score of all sentences together.

    Args:
        figure: function of the places of units, ``(units,)`` of 0 to ``units - 1``.
        units: number of units.

    Returns:
        None for a single unit.
    """
    if units < 2:
        return None
    resampled = np.array([figure(places) for places in _drawn(units)])
    return _percentiles(figure(np.arange(units)), resampled, units)


def change_interval(before: Array, after: Array, units: int) -> Interval | None:
    """Find the interval of the change of a share, of decisions that are right or wrong in pairs.

    Where hardly any of them changes, resampling sees no error: the interval is nowhere narrower
    than that of Agresti and Min (2005), who add half a decision to each of the four outcomes.

    Args:
        before, after: ``(decisions,)`` truth values, resampled in ``units`` runs of neighbours.
    """
    change = after.astype(np.float64) - before
    found = runs_interval(change, units)
    if found is None:
        return None
    count = len(change) + 2
    middle, changed = float(change.sum()) / count, float(np.abs(change).sum()) + 1
    margin = _Z * math.sqrt(changed / count - middle**2) / math.sqrt(count)
    low, high = min(found.low, middle - margin), max(found.high, middle + margin)
    return Interval(max(-1.0, low), min(1.0, high), found.units)


def _drawn(units: int) -> Array:
    """Draw units again and again, ``(RESAMPLES, units)``."""
    return np.random.default_rng(SEED).integers(units, size=(RESAMPLES, units))


def _percentiles(figure: float, resampled: Array, units: int) -> Interval:
    """Read the ends off ``resampled`` figures, and widen them as few units ask for."""
    ends = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    wider = math.sqrt(units / (units - 1)) * (1 + (_Z**2 + 1) / (4 * (units - 1)))
    low, high = (figure + wider * (float(end) - figure) for end in ends)
    return Interval(low, high, units)


def upper_end(values: Sequence[float] | Array, weights: Array | None = None) -> float:
    """Find the upper end of the mean's interval; of a single unit, its value."""
    found = mean_interval(values, weights)
    return float(values[0]) if found is None else found.high


def share_interval(decisions: Array, units: int) -> Interval | None:
    """Find the interval of the share of ``decisions`` that are true.

    They are resampled in ``units`` runs of neighbours: the tokens of a text, or a text each. Where
    nearly all are equal, resampling sees no error; the interval is nowhere narrower than Wilson's
    (1927), which takes the decisions to be independent.
    """
    found = runs_interval(decisions.astype(np.float64), units)
    if found is None:
        return None
    low, high = wilson(float(decisions.mean()), len(decisions))
    return Interval(max(0.0, min(found.low, low)), min(1.0, max(found.high, high)), found.units)


def runs_interval(values: Array, units: int) -> Interval | None:
    """Find the interval of a mean, in ``units`` runs of neighbours: each of one text, as a rule."""
    parts = np.array_split(values, max(1, min(units, len(values))))
    return mean_interval([part.mean() for part in parts], np.array(list(map(len, parts))))


def wilson(share: float, count: int, z: float = _Z) -> tuple[float, float]:
    """Find Wilson's interval of a share of ``count`` independent decisions (Wilson, 1927)."""
    root = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    middle, scale = share + z**2 / (2 * count), 1 + z**2 / count
    return (middle - root) / scale, (middle + root) / scale


def surely_below(limit: float, count: int) -> float:
    """Find the largest share of ``count`` decisions whose Wilson interval ends at ``limit``."""
    return max(0.0, limit - _Z * math.sqrt(limit * (1 - limit) / count))


def in_blocks(rows: Sequence[Array]) -> tuple[Array, Array]:
    """Cut rows of tokens into blocks; return the mean of each, and its number of tokens."""
    blocks = [
        block for row in rows for block in np.array_split(row, math.ceil(len(row) / BLOCK_TOKENS))
    ]
    return np.array([block.mean() for block in blocks]), np.array(list(map(len, blocks)))
