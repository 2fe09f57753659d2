"""One threshold on learned scores, the same for every linear (SoCo, 2025, arXiv:2502.15092).

Scores that were learned together, from one loss, are comparable as they are: unlike the singular
values of WeLore they are not normalized per linear.
"""

from __future__ import annotations

from edgelr.core.plan import Candidate, Choice
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.bisect import one_threshold
from edgelr.planning.candidates import Options


@ALLOCATORS.register("threshold")
def threshold(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Keep the components whose sigma is above one threshold, bisected to the budget."""
    largest = max(float(option.sigma.max()) for option in options) or 1.0
    return one_threshold(
        options,
        budget_bytes,
        lambda option: option.sigma / largest,
        lambda chosen, share: _reason(chosen, share * largest),
    )


def _reason(chosen: Candidate, score: float) -> str:
    if chosen.form == "dense":
        return f"more components above {score:.4g} than a smaller form can hold"
    return f"{chosen.form} rank {chosen.rank} holds the components above {score:.4g}"
