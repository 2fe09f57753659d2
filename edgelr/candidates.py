"""What every group may become: one candidate per form and rank, with its cost and its loss.

=========  ====================  =====================================================
form       parameters            nodes
=========  ====================  =====================================================
dense      m * n                 MatMul
low_rank   r * (m + n)           MatMul, MatMul
pivoted    r * (m + n - r)       MatMul, MatMul and a permutation of the smaller side
=========  ====================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelr.types import PRECISION_BYTES, Candidate, Choice, Form, Precision, SiteGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Options:
    """The candidates of one group, and the spectrum that predicted their losses.

    Attributes:
        name: of the group.
        dense: stay as it is, at no loss.
        compressed: every smaller candidate, ordered by rank; possibly none.
        sigma: singular values in the method's metric, descending, ``(k,)``.
    """

    name: str
    dense: Candidate
    compressed: tuple[Candidate, ...]
    sigma: NDArray[np.float64]

    @property
    def smallest(self) -> Candidate:
        """The candidate of fewest bytes."""
        return min((self.dense, *self.compressed), key=lambda candidate: candidate.bytes)


LEAST_SAVING = 1 / 8  # of the dense bytes: what the further nodes of a small product cost in time

Allocator = Callable[[list[Options], int], dict[str, Choice]]
"""Chooses one candidate per group so that their bytes fit the budget (second argument)."""


def parameters(form: Form, in_features: int, out_features: int, rank: int) -> int:
    """Count the weights that ``form`` stores; a permutation's indices are not parameters."""
    if form == "dense":
        return in_features * out_features
    both = in_features + out_features
    return rank * both if form == "low_rank" else rank * (both - rank)


def index_bytes(form: Form, in_features: int, out_features: int) -> int:
    """Bytes of the indices that ``form`` stores beside its weights (int64, as ONNX wants them)."""
    return 8 * min(in_features, out_features) if form == "pivoted" else 0


def make_options(
    group: SiteGroup,
    loss: NDArray[np.float64],
    forms: tuple[Form, ...],
    precision: Precision,
    rank_multiple: int,
) -> Options:
    """List the candidates of one group.

    A compressed candidate is listed only where it is smaller than dense by more than its further
    nodes cost in time: a site never grows, and is not split for nothing.

    Args:
        group: what is factorized together.
        loss: predicted loss by number of kept components, ``(k + 1,)``.
        forms: which forms are allowed.
        precision: of the stored weights.
        rank_multiple: ranks are multiples of this, as the device's kernels like them.
    """
    width = PRECISION_BYTES[precision]
    rows, columns = group.in_features, group.out_features
    dense_parameters = rows * columns
    dense = Candidate("dense", min(rows, columns), precision, dense_parameters * width,
                      2 * dense_parameters, 0.0)  # fmt: skip
    compressed = []
    for rank in range(rank_multiple, len(loss), rank_multiple):
        for form in forms:
            count = parameters(form, rows, columns, rank)
            size = count * width + index_bytes(form, rows, columns)
            if form != "dense" and size <= (1 - LEAST_SAVING) * dense.bytes:
                compressed.append(
                    Candidate(form, rank, precision, size, 2 * count, float(loss[rank]))
                )
    sigma = np.sqrt(np.maximum(0.0, -2 * np.diff(loss)))
    return Options(group.name, dense, tuple(compressed), sigma)
