"""Sums of ``x^T x``, of which the upper half is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PANELS = 8  # in which a Gram is summed: more save multiplications,
FEWEST_COLUMNS, MOST_COLUMNS = 96, 384  # but narrow ones multiply slowly


def add_gram(gram: Tensor, x: Tensor, weight: float = 1.0) -> None:
    """Add ``weight * x^T x`` of ``x (tokens, n)`` to ``gram (n, n)``: its upper panels only."""
    columns = min(max(len(gram) // PANELS, FEWEST_COLUMNS), MOST_COLUMNS)
    for start in range(0, len(gram), columns):
        panel = x[:, start : start + columns]
        gram[start : start + columns, start:].addmm_(panel.T, x[:, start:], alpha=weight)


def mirrored(gram: Tensor) -> Tensor:
    """Fill the lower half of a symmetric matrix from its upper half."""
    return gram.triu() + gram.triu(1).T
