"""WeLore: one threshold on normalized singular values (Jaiswal et al., 2024, arXiv:2407.11239).

A weight whose spectrum has a heavy tail keeps few singular values above the threshold: it is a
low-rank component. One whose rank would not be below break-even stays dense. The published code
fixes the threshold for two models; here it is bisected to the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelr.allocators import ALLOCATORS
from edgelr.allocators.bisect import loosest, spent
from edgelr.candidates import Options
from edgelr.types import Candidate, Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray


@ALLOCATORS.register("welore")
def welore(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Keep the singular values above one threshold on ``(s - min) / (max - min)``."""
    if spent(option.dense for option in options) <= budget_bytes:
        return {
            option.name: Choice(option.dense, "the budget holds it dense") for option in options
        }
    kept = loosest(lambda knob: [_above(option, 1 - knob) for option in options], budget_bytes)
    return {option.name: _explain(_above(option, 1 - kept), 1 - kept) for option in options}


def normalized(option: Options) -> NDArray[np.float64]:
    """Scale the singular values of one group to [0, 1]."""
    sigma = option.sigma
    spread = max(float(sigma.max() - sigma.min()), float(np.finfo(float).tiny))
    scaled: NDArray[np.float64] = (sigma - sigma.min()) / spread
    return scaled


def _above(option: Options, threshold: float) -> Candidate:
    """Candidate of the rank above the threshold: rounded up, dense past break-even.

    At threshold 1 that is the smallest candidate, however many values tie with the largest.
    """
    rank = int((normalized(option) > threshold).sum())
    enough = [c for c in option.compressed if c.rank >= rank]
    return min(enough, key=lambda c: c.bytes, default=option.dense)


def _explain(chosen: Candidate, threshold: float) -> Choice:
    if chosen.form == "dense":
        return Choice(chosen, f"non-low-rank component at threshold {threshold:.4f}")
    return Choice(chosen, f"low-rank component at threshold {threshold:.4f}")
