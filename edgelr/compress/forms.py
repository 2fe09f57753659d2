"""Forms of factors: the products that they compute, and conversions between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import qr, solve_triangular

from edgelr.compress.factors import Dense, Factors, Kronecker, LowRank, Pivoted, Tied
from edgelr.core.vocabulary import Array

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_COEFFICIENT = 16.0  # errors of the pivots grow by this much at most
WINDOWS = 32  # places that are tried for pivots that are neighbours, at most
LARGEST_CONDITION = 1e6  # of the pivots: beyond it their coefficients are noise


def balance(factors: LowRank) -> LowRank:
    """Scale every component so that its two vectors have equal norms.

    The product stays the same. Unbalanced factors carry the metric's units (a gradient's scale
    and its reciprocal) and overflow in float16.
    """
    down_norm = factors.down.norm(dim=0)  # (rank,)
    up_norm = factors.up.norm(dim=1)  # (rank,)
    tiny = torch.finfo(factors.down.dtype).tiny
    scale = up_norm.clamp_min(tiny).sqrt() / down_norm.clamp_min(tiny).sqrt()  # root first: finite
    return LowRank(factors.down * scale, factors.up / scale[:, None], factors.shared)


def level(factors: LowRank) -> LowRank:
    """Scale every component so that its row of ``up`` has norm one; the product stays the same.

    Blocks of ``up`` run over components: one large among them would leave the others few steps.
    """
    norm = factors.up.norm(dim=1).clamp_min(torch.finfo(factors.up.dtype).tiny)  # (rank,)
    return LowRank(factors.down * norm, factors.up / norm[:, None], factors.shared)


def pivot(factors: LowRank, block: int = 1) -> Pivoted:
    """Rewrite a rank-``r`` product with ``r**2`` fewer parameters (PIFA, arXiv:2501.19090).

    A matrix of rank ``r`` is determined by ``r`` of its rows (or columns) and by the coefficients
    of the others. The pivoted side is the smaller one, because moving values is paid on that side
    at run time; sites that share a basis can only pivot the inputs that they have in common.

    Pivots that are neighbours need no permutation. Where their coefficients would be large, runs of
    neighbours are taken, ever shorter ones, and at last single pivots: the freer the choice, the
    nearer to one are the coefficients.

    Args:
        factors: product to rewrite.
        block: step between places where pivots may begin, and length of their longest runs, where
            it divides both the rank and the pivoted side.
    """
    rank = len(factors.up)
    rows = factors.up.shape[1] <= factors.down.shape[0] and factors.shared is None
    if rows:
        matrix = torch.linalg.qr(factors.down)[1] @ factors.up
    else:
        matrix = torch.linalg.qr(factors.up.T)[1] @ factors.down.T
    order, rest = _interpolate(matrix.double().numpy(), math.gcd(block, rank, matrix.shape[1]))
    coefficients = torch.from_numpy(rest).to(matrix.dtype)
    if rows:
        chosen = factors.up[:, order[:rank]]
        return Pivoted("rows", factors.down @ chosen, coefficients, torch.from_numpy(order))
    chosen = factors.down[order[:rank]]
    return Pivoted(
        "columns",
        coefficients.T.contiguous(),
        chosen @ factors.up,
        torch.from_numpy(order),
        factors.shared,
    )


def _interpolate(matrix: Array, block: int) -> tuple[Array, Array]:
    """Express the columns of ``matrix (rank, n)`` by ``rank`` of them.

    Returns:
        ``order (n,)``, pivots first, and ``rest (rank, n - rank)`` with
        ``matrix[:, order[rank:]] = matrix[:, order[:rank]] @ rest``.
    """
    for order in _choices(matrix, block):
        pivots, others = np.split(matrix[:, order], [len(matrix)], axis=1)
        with suppress(np.linalg.LinAlgError):  # they span too little
            rest: Array = np.linalg.solve(pivots, others).astype(np.float64)
            modest = np.abs(rest).max(initial=0.0) < LARGEST_COEFFICIENT
            if modest and np.linalg.cond(pivots) < LARGEST_CONDITION:
                return order, rest
    return _single_pivots(matrix)


def _choices(matrix: Array, block: int) -> Iterator[Array]:
    """Orders of the columns of ``matrix (rank, n)``, pivots first; the cheapest comes first."""
    rank, columns = matrix.shape
    free = (columns - rank) // block
    starts = np.linspace(0, free, min(free, WINDOWS) + 1).astype(int) * block
    for start in dict.fromkeys((starts[0], starts[-1], *starts)):  # ends have one part less
        window = np.arange(start, start + rank)
        yield np.concatenate((window, np.delete(np.arange(columns), window)))
    while block > 1:
        yield _block_pivots(matrix, block)
        block //= 2


def _single_pivots(matrix: Array) -> tuple[Array, Array]:
    """Pivots by QR with column pivoting: coefficients stay near one.

    Pivots past the numerical rank, as pruned weights have them, get coefficients of zero.
    """
    rank = matrix.shape[0]
    triangular, order = qr(matrix, mode="r", pivoting=True)
    diagonal = np.abs(triangular.diagonal())  # descending
    useful = int((diagonal > np.finfo(np.float64).eps * diagonal[0]).sum())
    rest = np.zeros((rank, triangular.shape[1] - rank))
    rest[:useful] = solve_triangular(triangular[:useful, :useful], triangular[:useful, rank:])
    return order.astype(np.int64), rest


def _block_pivots(matrix: Array, block: int) -> Array:
    """Order the columns of ``matrix (rank, n)`` in runs of ``block``, ``rank`` pivots first.

    Greedily takes the run that spans the largest volume outside what is already spanned.
    """
    rank, columns = matrix.shape
    residual = matrix.copy()
    grams = _grams_of_runs(residual, block)
    floor = (1e-12 * grams.max() + np.finfo(np.float64).tiny) * np.eye(block)
    free = list(range(columns // block))
    chosen: list[int] = []
    while len(chosen) * block < rank:
        volumes = np.linalg.slogdet(grams[free] + floor)[1]
        run = free.pop(int(np.argmax(volumes)))
        chosen.append(run)
        basis, _ = np.linalg.qr(residual[:, run * block : (run + 1) * block])
        spanned = basis.T @ residual
        residual -= basis @ spanned
        grams -= _grams_of_runs(spanned, block)
    return (np.array(chosen + free)[:, None] * block + np.arange(block)).ravel()


def _grams_of_runs(matrix: Array, block: int) -> Array:
    """Gram matrix of every run of ``block`` columns, ``(n / block, block, block)``."""
    runs = matrix.reshape(len(matrix), -1, block).transpose(1, 2, 0)
    grams: Array = runs @ runs.swapaxes(1, 2)
    return grams


def apply(factors: Factors, x: Tensor) -> Tensor:
    """Compute the linear without its bias: ``x (..., in_features)`` to ``(..., out_features)``."""
    if isinstance(factors, LowRank):
        return x @ factors.down @ factors.up
    if isinstance(factors, Dense):
        return x @ factors.weight
    if isinstance(factors, Tied):
        return x @ (factors.weight.T if factors.transposed else factors.weight)
    if isinstance(factors, Kronecker):
        return _apply_kronecker(factors, x)
    if factors.axis == "rows":
        pivots = x @ factors.first
        mixed = torch.cat([pivots, pivots @ factors.second], dim=-1)
        return mixed[..., factors.order.argsort()]
    rank = factors.second.shape[0]
    ordered = x[..., factors.order]
    return (ordered[..., :rank] + ordered[..., rank:] @ factors.first) @ factors.second


def _apply_kronecker(factors: Kronecker, x: Tensor) -> Tensor:
    """``sum_k left[k] X right[k]^T`` with ``x`` as the matrix ``X (n1, n2)``."""
    terms, m1, n1 = factors.left.shape
    _, m2, n2 = factors.right.shape
    matrix = x.reshape(*x.shape[:-1], 1, n1, n2)
    mixed = (matrix @ factors.right.mT).reshape(*x.shape[:-1], terms * n1, m2)
    left = factors.left.permute(1, 0, 2).reshape(m1, terms * n1)
    return (left @ mixed).reshape(*x.shape[:-1], m1 * m2)


def dense_weight(factors: Factors) -> Tensor:
    """Multiply the factors out, ``(out_features, in_features)``."""
    if isinstance(factors, Dense):
        return factors.weight.T
    if isinstance(factors, Tied):
        return factors.weight if factors.transposed else factors.weight.T
    if isinstance(factors, Kronecker):
        return torch.stack(
            [
                torch.kron(left, right)
                for left, right in zip(factors.left, factors.right, strict=True)
            ]
        ).sum(0)
    if isinstance(factors, LowRank):
        return (factors.down @ factors.up).T
    in_features = len(factors.order) if factors.axis == "columns" else len(factors.first)
    return apply(factors, torch.eye(in_features, dtype=factors.first.dtype)).T
