"""How many samples every linear is run on, and what is estimated from so few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgelr.stages.onnx.components import Matrix

PROBED = ((0.1, 0.35, 0.75), (0.2, 0.7), (0.35,))
"""Probed ranks, of that at which two factors are as large as the weight: three, two or one."""

PASSES = 32  # over all samples, for the probes of all linears, at most
PILOT = 4  # samples that every rank of every linear is run on at least, where there are runs for it
CERTAIN = 0.15  # standard error of what a rank costs, as a share, at which it is known
VARYING = 0.3  # standard deviation of a linear's cost over its error between ranks, as a share
LEAST_SHARE = 0.05  # of a sample in what all rows have in common
ROUNDS = 20  # of means of rows and columns


def design(linears: int, samples: int) -> tuple[Sequence[float], int, int]:
    """Divide the runs that there may be among linears.

    Args:
        linears: number of linears.
        samples: number of samples.

    Returns:
        Probed ranks, as shares; the samples that each of them may be run on; and how many linears
        are truncated at once: one, where there are enough runs.
    """
    runs, most = PASSES * samples, 0
    for shares in PROBED:
        most = min(samples, runs // max(1, linears * len(shares)))
        if most >= min(PILOT, samples):
            break
    return shares, max(1, most), max(1, math.ceil(linears / runs))


def row_means(table: Matrix) -> tuple[Matrix, float]:
    """Estimate means of rows of which parts are known, and NaN elsewhere.

    A row is taken to be a multiple of what all have in common: some samples move every output more
    than others. Where a row is whole, this is its mean.

    Returns:
        Means, and how far values are from what they are estimated to be, root mean square of the
        shares.
    """
    known = ~np.isnan(table)
    values, common = np.where(known, table, 0.0), np.ones(table.shape[1])
    means = np.zeros(len(table))
    for _ in range(ROUNDS):
        means = values.sum(1) / np.maximum(known @ common, LEAST_SHARE)
        positive = means > 0
        shares = values[positive] / means[positive, None]
        seen = known[positive].sum(0)
        common = np.where(seen > 0, shares.sum(0) / np.maximum(1, seen), 1.0)
        common = np.maximum(common / common.mean(), LEAST_SHARE)
    estimates = means[:, None] * common
    inside = known & (estimates > 0)
    off = values[inside] / estimates[inside] - 1
    spread = float(np.sqrt(np.mean(off**2))) if len(off) else 0.0
    return np.where(known.all(1), values.mean(1), means), spread


def enough(spread: float) -> int:
    """Count the samples after which a mean is known well enough."""
    return math.ceil((spread / CERTAIN) ** 2)


def pooled(scales: Matrix, error: float) -> Matrix:
    """Draw what was measured at single ranks to what all ranks of a linear say.

    Args:
        scales: cost over squared error of the layer, ``(linears, ranks)``.
        error: standard error of each, as a share; 0 leaves them as they are.

    Returns:
        Scales, with a common profile over ranks.
    """
    tiny = np.finfo(np.float64).tiny
    profile = (scales / np.maximum(scales.mean(1, keepdims=True), tiny)).mean(0)
    own = (scales / np.maximum(profile, tiny)).mean(1, keepdims=True) * profile
    share = error**2 / (error**2 + VARYING**2)
    mixed: Matrix = (1 - share) * scales + share * own
    return mixed
