"""Common parts of the methods: the truncated SVD between two metrics, and fits of single ranks.

Replacing ``W`` by ``W'`` costs ``1/2 ||R (W - W') S||_F^2`` where ``R^T R = G`` weighs the outputs
and ``S S^T = H`` the inputs. The best answer of every rank is the truncated SVD of ``M = R W S``,
and dropping component k costs ``1/2 sigma_k^2``. Methods that differ in ``G`` and ``H`` alone are
one call of ``factorize_between``; those without nested components fit the ranks of ``grid``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition, Fits, LowRank

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it computes: listing the methods must not load it.


def damped(gram: Tensor, damping: float) -> Tensor:
    """Blend the mean diagonal into ``gram (n, n)``: directions never seen make it singular.

    A Gram of zeros (a linear that nothing reads) becomes the identity times the smallest normal
    number, so that its factors stay finite and its loss is zero for every purpose.
    """
    import torch

    gram = gram.double()
    mean = gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    return (1 - damping) * gram + damping * mean * eye


def factorize_between(
    weight: Tensor, output_gram: Tensor | None, input_gram: Tensor | None
) -> Decomposition:
    """Minimize ``1/2 tr(D^T G D H)`` over every rank at once.

    Cholesky factors serve as roots: unlike eigenvectors they cost next to nothing, and the
    singular values do not depend on which root is taken. The eigenvectors are those of the
    smaller of ``M M^T`` and ``M^T M``.

    Args:
        weight: dense weight, ``(out_features, in_features)``, float64.
        output_gram: metric ``G``, positive definite, or None for the identity.
        input_gram: metric ``H``, positive definite, or None for the identity.
    """
    import torch

    weight = weight.double()
    left = None if output_gram is None else torch.linalg.cholesky(output_gram)  # G = L L^T, R = L^T
    right = None if input_gram is None else torch.linalg.cholesky(input_gram)  # S
    weighted = weight if left is None else left.T @ weight  # R W
    matrix = weighted if right is None else weighted @ right  # M = R W S, (out, in)
    if matrix.shape[0] <= matrix.shape[1]:
        sigma, vectors = sorted_eigenvectors(matrix @ matrix.T)  # U, (out, k)
        lifted = vectors if left is None else _solve(left.T, vectors)  # R^-1 U
        down, up = (vectors.T @ weighted).T, lifted.T
    else:
        sigma, vectors = sorted_eigenvectors(matrix.T @ matrix)  # V, (in, k)
        lifted = vectors if right is None else _solve(right.T, vectors)  # S^-T V
        product = weight @ (vectors if right is None else right @ vectors)  # W S V
        down, up = lifted, product.T
    return Decomposition(down.contiguous(), up.contiguous(), tail_loss(sigma))


def tail_loss(sigma_squared: Tensor) -> Tensor:
    """Half the sum of the dropped squares, for every number of kept components: ``(k + 1,)``."""
    import torch

    tail = sigma_squared.flip(0).cumsum(0).flip(0)
    return 0.5 * torch.cat([tail, tail.new_zeros(1)])


def grid(full: int, count: int = 8) -> tuple[int, ...]:
    """Space about ``count`` ranks evenly up to ``full``, which is always the last."""
    step = 16 if full >= 128 else 2  # 16: Tensor Core tiles; 2: halves of a rank exist
    spaced = {round(full * part / count / step) * step for part in range(1, count)}
    return (*sorted(rank for rank in spaced if 0 < rank < full), full)


def gather(weight: Tensor, dropped: float, fitted: dict[int, tuple[LowRank, float]]) -> Fits:
    """Collect fits of single ranks: none is worse than a lower one, and the last is exact.

    Where a search found nothing better than the fit of a lower rank, that fit is taken, with
    components of zero.

    Args:
        weight: dense weight, ``(out_features, in_features)``, float64.
        dropped: loss of dropping the whole weight.
        fitted: factors and loss by rank.
    """
    import torch

    (out_features, in_features), full = weight.shape, min(weight.shape)
    best = LowRank(weight.new_zeros(in_features, 0), weight.new_zeros(0, out_features))
    loss = torch.full((full + 1,), math.inf, dtype=torch.float64)
    loss[0] = least = dropped
    fits = {}
    for rank, (factors, error) in sorted(fitted.items()):
        if error < least:
            best, least = factors, error
        fits[rank], loss[rank] = _padded(best, rank), least
    fits[full], loss[full] = _exact(weight), 0.0
    return Fits(fits, loss)


def _padded(factors: LowRank, rank: int) -> LowRank:
    from torch.nn.functional import pad

    missing = rank - len(factors.up)
    down, up = pad(factors.down, (0, missing)), pad(factors.up, (0, 0, 0, missing))
    return LowRank(down.contiguous(), up.contiguous())


def _exact(weight: Tensor) -> LowRank:
    """Write ``weight`` as a product with the identity."""
    import torch

    eye = torch.eye(min(weight.shape), dtype=weight.dtype)
    transposed = weight.T.contiguous()
    wide = weight.shape[0] <= weight.shape[1]
    return LowRank(transposed, eye) if wide else LowRank(eye, transposed)


def sorted_eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of a symmetric matrix in descending order, clipped at zero, and vectors."""
    import torch

    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _solve(upper_triangular: Tensor, right: Tensor) -> Tensor:
    import torch

    solved: Tensor = torch.linalg.solve_triangular(upper_triangular, right, upper=True)
    return solved
