"""Hadamard product of two low-rank matrices, as in LoHa (2021, arXiv:2108.06098; arXiv:2408.05883).

Minimizes ``1/2 ||W - (A1 B1) * (A2 B2)||_F^2``, inner rank ``q``, ``*`` elementwise, by alternating
least squares. The product has rank ``q^2`` and is *exactly* a low-rank product of that rank, whose
factors are the row-wise Kronecker products of ``A1, A2`` and the column-wise ones of ``B1, B2``. So
it lowers to that and costs that: the SVD of rank ``q^2`` is never worse in this norm at the same
cost in the graph, and this method exists for comparison. The form pays where its few parameters
are kept apart and learned, as in adapters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition, Fits, LowRank
from edgelr.compress.methods import METHODS, Method, SiteStatistics
from edgelr.compress.methods.metric import factorize_between, gather
from edgelr.compress.methods.svd import metric

if TYPE_CHECKING:
    from torch import Tensor

SWEEPS = 8  # twice as many lower the loss by a percent
COUNT = 8  # inner ranks that are fitted
SMALLEST = 1e-12  # diagonal of a problem without data; the others are near one
NOISE = 0.1  # of the second product around one: components of zero would stay zero
RIDGE = 1e-6  # share of the mean diagonal: the problem of a row may be singular


def inner_ranks(full: int) -> tuple[int, ...]:
    """Space at most ``COUNT`` inner ranks ``q`` evenly, up to the largest with ``q^2 < full``."""
    step = 4 if full >= 128 else 1  # 4: its squares are multiples of 16, as in ``grid``
    largest = math.isqrt(full - 1) // step
    parts = {-(-largest * part // COUNT) for part in range(1, COUNT + 1)}
    return tuple(step * part for part in sorted(parts - {0}))


def hadamard(weight: Tensor, statistics: SiteStatistics) -> Fits:
    """Fit products of inner rank ``q``, which are factors of rank ``q^2``.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site, not read.
    """
    import torch

    del statistics
    weight = weight.double()
    scale = weight.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    start = factorize_between(weight / scale, None, None)
    fitted = {}
    for inner in inner_ranks(min(weight.shape)):
        first, second = fit(weight / scale, start, inner)
        factors = lower(LowRank(first.down * scale, first.up), second)
        error = weight - (factors.down @ factors.up).T
        fitted[inner**2] = factors, 0.5 * float(error.square().sum())
    return gather(weight, 0.5 * float(weight.square().sum()), fitted)


def lower(first: LowRank, second: LowRank) -> LowRank:
    """Write the elementwise product of two low-rank matrices as one, by face-splitting.

    Args:
        first: product of inner rank ``q``.
        second: product of inner rank ``p``; the result has rank ``q p``.
    """
    down = first.down[:, :, None] * second.down[:, None, :]  # (in, q, p)
    up = first.up[:, None, :] * second.up[None, :, :]  # (q, p, out)
    return LowRank(down.flatten(1), up.flatten(0, 1))


def fit(weight: Tensor, start: Decomposition, inner: int) -> tuple[LowRank, LowRank]:
    """Alternate between the four factors, from the truncated SVD times one.

    Args:
        weight: dense weight of mean square one, ``(out_features, in_features)``.
        start: singular value decomposition of the weight.
        inner: rank of both products.
    """
    import torch

    target = weight.float()  # twice as fast, and far finer than the fit
    generator = torch.Generator().manual_seed(0)
    a1, b1 = start.up[:inner].T.float(), start.down[:, :inner].float()  # (out, q), (in, q)
    a2, b2 = (NOISE * torch.randn(each.shape, generator=generator) for each in (a1, b1))
    a2[:, 0] = b2[:, 0] = 1.0
    for _ in range(SWEEPS):
        other = a2 @ b2.T
        a1 = _rows(target, other, b1)
        b1 = _rows(target.T, other.T, a1)
        other = a1 @ b1.T
        a2 = _rows(target, other, b2)
        b2 = _rows(target.T, other.T, a2)
    return LowRank(b1.double(), a1.T.double()), LowRank(b2.double(), a2.T.double())


def _rows(target: Tensor, other: Tensor, basis: Tensor) -> Tensor:
    """Solve ``min ||target - (X basis^T) * other||`` for ``X (m, q)``, every row on its own.

    Args:
        target: matrix to fit, ``(m, n)``.
        other: elementwise factor, ``(m, n)``.
        basis: columns of the basis, ``(n, q)``.
    """
    import torch

    q = basis.shape[1]
    i, j = torch.triu_indices(q, q)
    normal = target.new_empty(len(target), q, q)
    normal[:, i, j] = normal[:, j, i] = other.square() @ (basis[:, i] * basis[:, j])
    mean = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(SMALLEST)
    normal += RIDGE * mean[:, None, None] * torch.eye(q)
    right = (target * other) @ basis
    solved: Tensor = torch.linalg.solve(normal, right)
    return solved


METHODS.register("hadamard")(
    Method(
        hadamard,
        metric,
        frozenset(),
        "LoHa, Hyeon-Woo et al., 2021, arXiv:2108.06098; Lu, 2024, arXiv:2408.05883",
        nested=False,
    )
)
