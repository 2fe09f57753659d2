"""What every group may become: one candidate per form and rank, with its cost and its loss.

=========  =====================  =====================================================
form       parameters             nodes
=========  =====================  =====================================================
dense      m * n                  MatMul
low_rank   r * (m + n)            MatMul, MatMul
pivoted    r * (m + n - r)        MatMul, MatMul; values are cut apart or put together
tied       m * n for two linears  MatMul; MatMul with the transposed weight
kronecker  t * (m1 n1 + m2 n2)    Reshape, MatMul, Reshape, MatMul, Reshape
=========  =====================  =====================================================

In a group of several sites ``m`` counts the outputs of all, and the first factor is stored once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelr.compress.block_quantized import QuantizedLoss
from edgelr.core.plan import Candidate, Choice
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import LAYOUTS, Form, Precision, WeightPrecision
from edgelr.device.storage import (
    INDEX_BYTES,
    LEAST_SAVING,
    PACKED_INPUTS,
    Shape,
    largest_rank,
    matrix_bytes,
    packed_bytes,
    stored,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Options:
    """The candidates of one group, and the spectrum that predicted their losses.

    Attributes:
        name: name of the group.
        sites: linears that it factorizes; groups that share one exclude each other.
        dense: stay as it is, or be no more than rounded where nothing may stay as it is.
        compressed: every smaller candidate; those of a precision are ordered by rank.
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


CONVOLUTION_FORMS: tuple[Form, ...] = ("dense", "low_rank")
QUANTIZED_FORMS: tuple[Form, ...] = ("dense", "low_rank")

Allocator = Callable[[list[Options], int], dict[str, Choice]]
"""Chooses candidates whose bytes fit the budget (second argument), so that every site is in exactly
one of the groups that it returns."""


def make_candidate(
    form: Form,
    group: SiteGroup,
    rank: int,
    loss: float,
    weights: WeightPrecision,
    values: Precision,
) -> Candidate:
    """Price one thing that a group may become."""
    kept = stored(form, group, rank)
    size = sum(matrix_bytes(shape, weights, values) for shape in kept.matrices)
    used = 2 * kept.parameters if form == "tied" else kept.parameters
    return Candidate(form, rank, weights, size + INDEX_BYTES * kept.indices, 2 * used, loss)


def site_candidates(group: SiteGroup, candidate: Candidate, values: Precision) -> list[Candidate]:
    """Divide a group's candidate among its sites; what they share is counted at the first."""
    kept = stored(candidate.form, group, candidate.rank)

    def size_of(shapes: Iterable[Shape]) -> int:
        return sum(matrix_bytes(shape, candidate.precision, values) for shape in shapes)

    parts = []
    for site, own in zip(group.sites, kept.own, strict=True):
        first = site is group.sites[0]
        size, used = size_of(own), sum(map(math.prod, own))
        if first:
            size += size_of(kept.shared) + INDEX_BYTES * kept.indices
        if first or group.kind != "input":
            used += sum(map(math.prod, kept.shared))
        share = site.parameters / group.parameters
        loss = share * candidate.predicted_loss
        parts.append(replace(candidate, bytes=size, flops=2 * used, predicted_loss=loss))
    return parts


def site_residency(
    group: SiteGroup, candidate: Candidate, values: Precision, packs: bool
) -> list[int]:
    """Bytes in memory of what each site of a group becomes.

    Args:
        group: linears that are planned together.
        candidate: form, rank and precision that it gets.
        values: precision of what weights are multiplied with.
        packs: whether the provider copies constant matrices into layouts of its own, once for
            every product, as that of the CPU does.
    """
    kept = stored(candidate.form, group, candidate.rank)

    def stored_bytes(shapes: Iterable[Shape]) -> int:
        return sum(matrix_bytes(shape, candidate.precision, values) for shape in shapes)

    def used_bytes(shapes: Iterable[Shape]) -> int:
        return sum(packed_bytes(shape, candidate.precision) for shape in shapes)

    parts = []
    for site, own in zip(group.sites, kept.own, strict=True):
        first = site is group.sites[0]
        if not packs or group.kind == "table":
            size = stored_bytes((*own, *(kept.shared if first else ())))
        else:
            again = first or group.kind != "input"  # whose product is computed once
            size = used_bytes((*own, *(kept.shared if again else ())))
        if packs and group.kind == "tied_table":
            size += stored_bytes(own)
        parts.append(size + INDEX_BYTES * kept.indices * first)
    return parts


def make_options(
    group: SiteGroup,
    loss: NDArray[np.float64],
    forms: tuple[Form, ...],
    values: Precision,
    rank_multiple: int,
    weights: tuple[WeightPrecision, ...] = (),
    quantized: Mapping[WeightPrecision, QuantizedLoss] | None = None,
) -> Options:
    """List the candidates of one group.

    A site never grows. Where it may stay dense, a compressed candidate is listed only if it is
    smaller by more than its further nodes cost in time: no site is split for nothing.

    Args:
        group: linears that are factorized together.
        loss: predicted loss by number of kept components, ``(k + 1,)``; infinite where the method
            made no factors.
        forms: allowed forms.
        values: precision of what weights are multiplied with.
        rank_multiple: ranks are multiples of this, as the device's kernels like them.
        weights: precisions that weights may have, none for ``values``. The first is that of a
            group that stays as it is.
        quantized: losses in int8 and int4.
    """
    if group.sites[0].kernel:  # two convolutions are all that one becomes
        forms = tuple(form for form in forms if form in CONVOLUTION_FORMS)
    known = {values: QuantizedLoss(0.0, loss), **(quantized or {})}
    weights = tuple(each for each in weights if each in known and not _fills_up(group, each))
    weights = weights or (values,)
    dense, *rounded = [_dense(group, known[each].dense, each, values) for each in weights]
    compressed = [each for each in rounded if each.bytes < dense.bytes]
    for precision in weights:
        compressed += _factorized(
            group, known[precision], forms, (precision, values), rank_multiple
        )
    finite = loss[np.isfinite(loss)]
    sigma = np.sqrt(np.maximum(0.0, -2 * np.diff(finite)))
    names = tuple(site.name for site in group.sites)
    return Options(group.name, names, dense, tuple(compressed), sigma)


def _fills_up(group: SiteGroup, weights: WeightPrecision) -> bool:
    """Whether kernels fill so small a matrix up to more memory than one of more bits takes."""
    layout = LAYOUTS.get(weights)
    return layout is not None and group.in_features < PACKED_INPUTS.get(layout.bits, 0)


def _dense(group: SiteGroup, loss: float, weights: WeightPrecision, values: Precision) -> Candidate:
    full = min(group.in_features, group.out_features)
    return make_candidate("dense", group, full, loss, weights, values)


def _factorized(
    group: SiteGroup,
    lost: QuantizedLoss,
    forms: tuple[Form, ...],
    precisions: tuple[WeightPrecision, Precision],
    multiple: int,
) -> Iterator[Candidate]:
    """Candidates of one precision of the weights that are smaller than dense."""
    if precisions[0] in LAYOUTS:  # whole blocks, and what MatMulNBits can multiply with
        multiple = math.lcm(multiple, LAYOUTS[precisions[0]].block_size)
        forms = tuple(form for form in forms if form in QUANTIZED_FORMS)
    dense = _dense(group, lost.dense, *precisions).bytes
    largest = (1 - LEAST_SAVING) * dense if "dense" in forms else dense - 1
    for form, rank in _choices(group, forms, len(lost.product) - 1, multiple):
        if math.isfinite(lost.product[rank]):
            loss = float(lost.product[rank])
            candidate = make_candidate(form, group, rank, loss, *precisions)
            if candidate.bytes <= largest:
                yield candidate


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
