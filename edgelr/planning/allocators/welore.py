"""WeLore: one threshold on normalized singular values (Jaiswal et al., 2024, arXiv:2407.11239).

A weight whose spectrum has a heavy tail keeps few singular values above the threshold: it is a
low-rank component. One whose rank would not be below break-even stays dense. The published code
fixes the threshold for two models; here it is bisected to the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.plan import Candidate, Choice
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.bisect import one_threshold
from edgelr.planning.candidates import Options

if TYPE_CHECKING:
    from numpy.typing import NDArray


@ALLOCATORS.register("welore")
def welore(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Keep the singular values above one threshold on ``(s - min) / (max - min)``."""
    return one_threshold(options, budget_bytes, normalized, _reason)


def normalized(option: Options) -> NDArray[np.float64]:
    """Scale the singular values of one group to [0, 1]."""
    sigma = option.sigma
    spread = max(float(sigma.max() - sigma.min()), float(np.finfo(float).tiny))
    scaled: NDArray[np.float64] = (sigma - sigma.min()) / spread
    return scaled


def _reason(chosen: Candidate, threshold: float) -> str:
    if chosen.form == "dense":
        return f"non-low-rank component at threshold {threshold:.4f}"
    return f"low-rank component at threshold {threshold:.4f}"
