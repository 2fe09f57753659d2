"""What every group may become: one candidate per form and rank, with its cost and its loss.

=========  =====================  =====================================================
form       parameters             nodes
=========  =====================  =====================================================
dense      m * n                  MatMul
low_rank   r * (m + n)            MatMul, MatMul
pivoted    r * (m + n - r)        MatMul, MatMul and a permutation
tied       m * n for two linears  MatMul; MatMul with the transposed weight
kronecker  t * (m1 n1 + m2 n2)    Reshape, MatMul, Reshape, MatMul, Reshape
=========  =====================  =====================================================

In a group of several sites ``m`` counts the outputs of all, and the first factor is stored once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelr.methods.kronecker import split
from edgelr.types import PRECISION_BYTES, Candidate, Choice, Form, Precision, SiteGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Options:
    """The candidates of one group, and the spectrum that predicted their losses.

    Attributes:
        name: of the group.
        sites: that it factorizes; groups that share a site exclude each other.
        dense: stay as it is, at no loss.
        compressed: every smaller candidate, ordered by rank; possibly none.
        sigma: singular values in the method's metric, descending, ``(k,)``.
    """

    name: str
    sites: tuple[str, ...]
    dense: Candidate
    compressed: tuple[Candidate, ...]
    sigma: NDArray[np.float64]

    @property
    def smallest(self) -> Candidate:
        """The candidate of fewest bytes."""
        return min((self.dense, *self.compressed), key=lambda candidate: candidate.bytes)


@dataclass(frozen=True, slots=True)
class Stored:
    """Sizes of the tensors that a group stores, in parameters.

    Attributes:
        shared: stored once for all sites; empty for a site alone.
        own: the tensors of each site.
        indices: of a permutation, int64 as ONNX wants them; no parameters.
    """

    shared: tuple[int, ...]
    own: tuple[tuple[int, ...], ...]
    indices: int = 0

    @property
    def parameters(self) -> int:
        return sum(self.shared) + sum(map(sum, self.own))


LEAST_SAVING = 1 / 8  # of the dense bytes: what the further nodes of a small product cost in time
INDEX_BYTES = 8

Allocator = Callable[[list[Options], int], dict[str, Choice]]
"""Chooses candidates whose bytes fit the budget (second argument), so that every site is in exactly
one of the groups that it returns."""


def stored(form: Form, group: SiteGroup, rank: int) -> Stored:
    """List what ``form`` stores for the sites of ``group``."""
    rows, columns = group.in_features, group.out_features
    if form == "dense":
        return Stored((), tuple((site.parameters,) for site in group.sites))
    if form == "tied":
        return Stored((rows * columns,), tuple(() for _ in group.sites))
    if form == "kronecker":
        (n1, n2), (m1, m2) = split(rows), split(columns)
        return Stored((), ((rank * m1 * n1, rank * m2 * n2),))
    if len(group.sites) > 1:
        ups = tuple((rank * site.out_features,) for site in group.sites)
        down = rank * rows if form == "low_rank" else rank * (rows - rank)
        return Stored((down,), ups, 0 if form == "low_rank" else rows)
    small, large = sorted((rows, columns))
    if form == "low_rank":
        return Stored((), ((rank * large, rank * small),))
    return Stored((), ((rank * large, rank * (small - rank)),), small)


def largest_rank(form: Form, group: SiteGroup) -> int:
    """The largest rank with which ``form`` can be stored."""
    full = min(group.in_features, group.out_features)
    if form == "kronecker":
        (n1, n2), (m1, m2) = split(group.in_features), split(group.out_features)
        return min(m1 * n1, m2 * n2)
    if form == "pivoted":
        small = group.in_features if len(group.sites) > 1 else full
        return min(full, small - 1)
    return full


def make_candidate(
    form: Form, group: SiteGroup, rank: int, precision: Precision, loss: float
) -> Candidate:
    """Price one thing that a group may become."""
    kept = stored(form, group, rank)
    size = kept.parameters * PRECISION_BYTES[precision] + INDEX_BYTES * kept.indices
    used = 2 * kept.parameters if form == "tied" else kept.parameters
    return Candidate(form, rank, precision, size, 2 * used, loss)


def site_candidates(group: SiteGroup, candidate: Candidate) -> list[Candidate]:
    """Divide a group's candidate among its sites; what they share is counted at the first."""
    kept = stored(candidate.form, group, candidate.rank)
    width = PRECISION_BYTES[candidate.precision]
    parts = []
    for site, own in zip(group.sites, kept.own, strict=True):
        first = site is group.sites[0]
        size = sum(own) * width
        if first:
            size += sum(kept.shared) * width + INDEX_BYTES * kept.indices
        flops = 2 * (sum(own) + (sum(kept.shared) if first or group.kind != "input" else 0))
        share = site.parameters / group.parameters
        parts.append(
            Candidate(
                candidate.form,
                candidate.rank,
                candidate.precision,
                size,
                flops,
                share * candidate.predicted_loss,
            )
        )
    return parts


def make_options(
    group: SiteGroup,
    loss: NDArray[np.float64],
    forms: tuple[Form, ...],
    precision: Precision,
    rank_multiple: int,
) -> Options:
    """List the candidates of one group.

    A site never grows. Where it may stay dense, a compressed candidate is listed only if it is
    smaller by more than its further nodes cost in time: no site is split for nothing.

    Args:
        group: what is factorized together.
        loss: predicted loss by number of kept components, ``(k + 1,)``; infinite where the method
            made no factors.
        forms: which forms are allowed.
        precision: of the stored weights.
        rank_multiple: ranks are multiples of this, as the device's kernels like them.
    """
    full = min(group.in_features, group.out_features)
    dense = make_candidate("dense", group, full, precision, 0.0)
    largest = (1 - LEAST_SAVING) * dense.bytes if "dense" in forms else dense.bytes - 1
    compressed = [
        candidate
        for form, rank in _choices(group, forms, len(loss) - 1, rank_multiple)
        if math.isfinite(loss[rank])
        for candidate in [make_candidate(form, group, rank, precision, float(loss[rank]))]
        if candidate.bytes <= largest
    ]
    finite = loss[np.isfinite(loss)]
    sigma = np.sqrt(np.maximum(0.0, -2 * np.diff(finite)))
    names = tuple(site.name for site in group.sites)
    return Options(group.name, names, dense, tuple(compressed), sigma)


def _choices(
    group: SiteGroup, forms: tuple[Form, ...], ranks: int, multiple: int
) -> list[tuple[Form, int]]:
    """Forms and ranks that the group may take, ordered by rank."""
    if group.kind == "tied":
        return [("tied", ranks)] if "tied" in forms else []
    if "kronecker" in forms:  # whose terms have the shapes of their own factors
        return [("kronecker", terms) for terms in range(1, ranks + 1)]
    return [
        (form, rank)
        for rank in range(multiple, ranks + 1, multiple)
        for form in forms
        if form in ("low_rank", "pivoted") and rank <= largest_rank(form, group)
    ]
