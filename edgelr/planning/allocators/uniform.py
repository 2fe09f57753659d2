"""The same kept share everywhere, as SVD-LLM (arXiv:2403.07378) and Basis Sharing allocate."""

from __future__ import annotations

from edgelr.core.plan import Candidate, Choice
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.bisect import loosest
from edgelr.planning.candidates import Options


@ALLOCATORS.register("uniform")
def uniform(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Give every group the largest candidate inside one common share of its dense bytes."""
    share = loosest(lambda kept: [_largest(option, kept) for option in options], budget_bytes)
    return {option.name: _explain(option, _largest(option, share), share) for option in options}


def _largest(option: Options, kept: float) -> Candidate:
    """Best candidate of at most ``kept`` of the dense bytes, or the smallest that there is."""
    if kept >= 1.0:
        return option.dense
    fitting = [c for c in option.compressed if c.bytes <= kept * option.dense.bytes]
    return min(fitting, key=lambda c: (c.predicted_loss, c.bytes), default=option.smallest)


def _explain(option: Options, chosen: Candidate, share: float) -> Choice:
    if chosen is option.dense:
        reason = "the budget holds it dense" if share >= 1.0 else "no smaller candidate"
    else:
        reason = f"uniform share {share:.3f}"
    return Choice(chosen, reason)
