"""One matrix for several linears: a basis for neighbouring blocks, and the tied pair.

Basis Sharing (Wang et al., 2024, arXiv:2410.03765) stacks the weights of one role along their
outputs, sums the Grams of their inputs and takes one truncated SVD. Its predicted loss is an upper
bound: every weight is judged with the inputs of all. Given the basis, each site's coefficients of
least error have a closed form; given the coefficients, so has the basis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgelr.compress.factors import Decomposition, LowRank, SharedBasis, TiedFit
from edgelr.compress.methods import ErrorMetric
from edgelr.compress.methods.metric import factorize_between, tail_loss


def factorize_stacked(
    weights: list[Tensor], metrics: list[ErrorMetric], input_gram: Tensor | None
) -> Decomposition:
    """Find one basis for all weights: the truncated SVD of ``R_i W_i S``, one above the other.

    The outputs of different sites are not weighed against each other, so that each ``R_i`` is
    applied, and undone, by itself.

    Args:
        weights: weight of each site, ``(out_features, in_features)``, float64.
        metrics: metric ``(G, H)`` of each site; of these only ``G`` counts.
        input_gram: metric ``H`` of all weights, ``(in_features, in_features)``.
    """
    roots = [None if g is None else torch.linalg.cholesky(g) for g, _ in metrics]  # G = L L^T
    pairs = list(zip(weights, roots, strict=True))
    weighted = torch.cat([w if root is None else root.T @ w for w, root in pairs])
    found = factorize_between(weighted, None, input_gram)
    parts = found.up.split([len(weight) for weight in weights], dim=1)
    ups = [
        part if root is None else torch.linalg.solve_triangular(root.T, part.T, upper=True).T
        for part, root in zip(parts, roots, strict=True)
    ]
    return Decomposition(found.down, torch.cat(ups, dim=1).contiguous(), found.loss)


def fit_coefficients(
    stacked: Decomposition, weights: list[Tensor], metrics: list[ErrorMetric]
) -> SharedBasis:
    """Give every site the coefficients that are best for its own inputs, at every rank.

    For a basis ``D`` and the Gram ``H`` of a site, the ``up`` of least ``tr(E^T G E H)`` does not
    depend on ``G``: it is that of the least squares ``(D^T H D)^-1 D^T H W^T``. In the basis that
    is orthonormal under ``H`` the coefficients of a smaller rank are those of a larger one.

    Args:
        stacked: decomposition under the sum of the sites' Grams; its ``down`` is the basis.
        weights: weight of each site, ``(out_features, in_features)``, float64.
        metrics: metric ``(G, H)`` of each site.
    """
    down = stacked.down.double()
    mixes, coefficients = [], []
    loss = torch.zeros(down.shape[1] + 1, dtype=torch.float64)
    for weight, (output_gram, input_gram) in zip(weights, metrics, strict=True):
        weighted = down if input_gram is None else input_gram @ down  # H D
        root = torch.linalg.cholesky(down.T @ weighted)  # D^T H D = L L^T
        mix = torch.linalg.solve_triangular(root.T, torch.eye(len(root)).to(down), upper=True)
        fitted = mix.T @ (weight @ weighted).T  # Q^T H W^T with Q = D L^-T, (k, out)
        mixes.append(mix)
        coefficients.append(fitted)
        weighed = fitted if output_gram is None else fitted @ output_gram
        loss += tail_loss((fitted * weighed).sum(1).clamp_min(0))
    return SharedBasis(down, torch.stack(mixes), torch.cat(coefficients, dim=1), loss)


def refine_basis(
    factors: LowRank, weights: list[Tensor], metrics: list[ErrorMetric], sweeps: int = 4
) -> LowRank:
    """Alternate between the best basis for the coefficients and the best coefficients for it.

    Both halves are convex, so the error of the group never grows.

    Args:
        factors: basis ``down (in, r)`` and the sites' ``up (r, out)`` side by side, float64.
        weights: weight of each site, ``(out_features, in_features)``, float64.
        metrics: metric ``(G, H)`` of each site.
        sweeps: number of turns of both halves.
    """
    down, ups = factors.down, list(factors.up.split([len(weight) for weight in weights], dim=1))
    for _ in range(sweeps):
        down = _best_basis(down, ups, weights, metrics)
        ups = [best_up(down, weight, h) for weight, (_, h) in zip(weights, metrics, strict=True)]
    return LowRank(down, torch.cat(ups, dim=1), factors.shared)


def group_loss(factors: LowRank, weights: list[Tensor], metrics: list[ErrorMetric]) -> float:
    """Predicted loss of a group: the sum over its sites of ``1/2 tr(E^T G E H)``."""
    ups = factors.up.split([len(weight) for weight in weights], dim=1)
    return sum(
        metric_loss(weight - (factors.down @ up).T, metric)
        for weight, up, metric in zip(weights, ups, metrics, strict=True)
    )


def metric_loss(error: Tensor, metric: ErrorMetric) -> float:
    """Predict the loss of an ``error (out_features, in_features)``: ``1/2 tr(E^T G E H)``."""
    output_gram, input_gram = metric
    weighed = error if output_gram is None else output_gram @ error
    weighed = weighed if input_gram is None else weighed @ input_gram
    return 0.5 * float((error * weighed).sum())


def tie(first: Tensor, second: Tensor, metrics: tuple[ErrorMetric, ErrorMetric]) -> TiedFit:
    """Find the matrix ``A`` that is nearest to ``first`` and whose transpose is to ``second``.

    The relative of the transposed pairs ``W^T F(W x)`` that arXiv:2401.16438 (2024) trains. Setting
    the gradient of both losses to zero gives ``G1 A H1 + H2 A G2 = G1 W1 H1 + H2 W2^T G2``.

    Args:
        first: weight of the first linear, ``(n, m)``.
        second: weight of the second linear, ``(m, n)``.
        metrics: metric ``(G, H)`` of both.
    """
    first, second = first.double(), second.double()
    (g1, h1), (g2, h2) = (
        (_matrix(g, len(weight)), _matrix(h, weight.shape[1]))
        for weight, (g, h) in zip((first, second), metrics, strict=True)
    )
    wanted = g1 @ first @ h1 + h2 @ second.T @ g2
    tied = _solve_pair((g1, h1), (h2, g2), wanted)  # (n, m)
    loss = torch.full((min(first.shape) + 1,), torch.inf, dtype=torch.float64)
    loss[-1] = sum(
        0.5 * ((error := weight - found) * (g @ error @ h)).sum()
        for weight, found, g, h in ((first, tied, g1, h1), (second, tied.T, g2, h2))
    )
    return TiedFit(tied.T.contiguous(), loss)


def best_up(down: Tensor, weight: Tensor, input_gram: Tensor | None) -> Tensor:
    """Solve for the ``up (rank, out)`` with which ``down (in, rank)`` is nearest to a weight.

    Of least ``tr(E^T G E H)`` for any ``G``: least squares under ``H``. Columns of ``down`` may
    depend on each other, as rounding can make them; then it is the smallest of the nearest.
    """
    weighted = down if input_gram is None else input_gram @ down
    normal, wanted = down.T @ weighted, (weight @ weighted).T
    solved = torch.linalg.solve_ex(normal, wanted)
    fitted: Tensor = solved.result
    if solved.info.any():  # it is singular
        fitted = torch.linalg.lstsq(normal, wanted, driver="gelsd").solution
    return fitted


def _best_basis(
    down: Tensor, ups: list[Tensor], weights: list[Tensor], metrics: list[ErrorMetric]
) -> Tensor:
    """Solve ``sum_i H_i D A_i = sum_i H_i W_i^T G_i U_i^T``, ``A_i = U_i G_i U_i^T``, for ``D``."""
    pairs, wanted = [], torch.zeros_like(down)
    for up, weight, (output_gram, input_gram) in zip(ups, weights, metrics, strict=True):
        weighed = up if output_gram is None else up @ output_gram  # U G, (r, out)
        inputs = _matrix(input_gram, len(down))
        pairs.append((inputs, weighed @ up.T))
        wanted += inputs @ (weighed @ weight).T
    first, second = pairs  # neighbours come in twos
    return _solve_pair(first, second, wanted)


def _solve_pair(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], wanted: Tensor
) -> Tensor:
    """Solve ``L1 X R1 + L2 X R2 = wanted``; all four are symmetric, the sums positive definite.

    In the basis in which ``L1 + L2`` is the identity and ``L1`` diagonal, and the same for ``R``,
    every entry of ``X`` has an equation of its own.
    """
    left, share_left = _joint_basis(first[0], second[0])
    right, share_right = _joint_basis(first[1], second[1])
    together = share_left[:, None] * share_right + (1 - share_left)[:, None] * (1 - share_right)
    return left @ ((left.T @ wanted @ right) / together) @ right.T


def _joint_basis(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Columns in which ``first + second`` is the identity and ``first`` is diagonal."""
    root = torch.linalg.cholesky(first + second)
    half = torch.linalg.solve_triangular(root, first, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.T, upper=False)
    share, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
    return torch.linalg.solve_triangular(root.T, vectors, upper=True), share.clamp(0, 1)


def _matrix(gram: Tensor | None, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64) if gram is None else gram.double()
