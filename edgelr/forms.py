"""What the factors of a compressed linear compute, and how one form becomes another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.linalg import qr, solve_triangular

from edgelr.types import Factors, LowRank, Pivoted

if TYPE_CHECKING:
    from torch import Tensor


def balance(factors: LowRank) -> LowRank:
    """Scale every component so that its two vectors have equal norms.

    The product stays the same. Unbalanced factors carry the metric's units (a gradient's scale
    and its reciprocal) and overflow in float16.
    """
    down_norm = factors.down.norm(dim=0)  # (rank,)
    up_norm = factors.up.norm(dim=1)  # (rank,)
    tiny = torch.finfo(factors.down.dtype).tiny
    scale = (up_norm.clamp_min(tiny) / down_norm.clamp_min(tiny)).sqrt()
    return LowRank(factors.down * scale, factors.up / scale[:, None])


def pivot(factors: LowRank) -> Pivoted:
    """Rewrite a rank-``r`` product with ``r**2`` fewer parameters (PIFA, arXiv:2501.19090).

    A matrix of rank ``r`` is determined by ``r`` of its rows (or columns) and by the coefficients
    of the others. Pivots come from QR with column pivoting, which keeps those coefficients near
    one, so that float16 can hold them. The pivoted side is the smaller one, because the
    permutation is paid on that side at run time.
    """
    if factors.up.shape[1] <= factors.down.shape[0]:
        order, rest = _interpolate(torch.linalg.qr(factors.down)[1] @ factors.up)
        chosen = factors.up[:, order[: len(factors.up)]]
        return Pivoted("rows", factors.down @ chosen, rest, order)
    order, rest = _interpolate(torch.linalg.qr(factors.up.T)[1] @ factors.down.T)
    chosen = factors.down[order[: len(factors.up)]]
    return Pivoted("columns", rest.T.contiguous(), chosen @ factors.up, order)


def _interpolate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Express the columns of ``matrix (rank, n)`` by ``rank`` of them.

    Returns:
        ``order (n,)``, pivots first, and ``rest (rank, n - rank)`` with
        ``matrix[:, order[rank:]] = matrix[:, order[:rank]] @ rest``.
    """
    rank = matrix.shape[0]
    triangular, order = qr(matrix.double().numpy(), mode="r", pivoting=True)
    rest = solve_triangular(triangular[:, :rank], triangular[:, rank:])
    return torch.from_numpy(order).long(), torch.from_numpy(rest).to(matrix.dtype)


def apply(factors: Factors, x: Tensor) -> Tensor:
    """Compute the linear without its bias: ``x (..., in_features)`` to ``(..., out_features)``."""
    if isinstance(factors, LowRank):
        return x @ factors.down @ factors.up
    if factors.axis == "rows":
        pivots = x @ factors.first
        mixed = torch.cat([pivots, pivots @ factors.second], dim=-1)
        return mixed[..., factors.order.argsort()]
    rank = factors.second.shape[0]
    ordered = x[..., factors.order]
    return (ordered[..., :rank] + ordered[..., rank:] @ factors.first) @ factors.second


def dense_weight(factors: Factors) -> Tensor:
    """Multiply the factors out, ``(out_features, in_features)``."""
    first = factors.down if isinstance(factors, LowRank) else factors.first
    in_features = first.shape[0]
    if isinstance(factors, Pivoted) and factors.axis == "columns":
        in_features = len(factors.order)
    return apply(factors, torch.eye(in_features, dtype=first.dtype)).T
