"""Alternating least squares between the two Fisher metrics (survey: Lu, 2024, arXiv:2408.05883).

Minimizes ``1/2 ||M - U V^T||_F^2``, ``M = R W S`` as in ``fisher``, for one rank at a time: with
``U`` fixed the best ``V`` is a least-squares problem, and so is ``U`` with ``V`` fixed. From a
random start it converges to the truncated SVD of ``M``, that is to ``fisher``, and is here to be
compared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Fits, LowRank
from edgelr.compress.methods import METHODS, Method, SiteStatistics
from edgelr.compress.methods.fisher import metric
from edgelr.compress.methods.metric import gather, grid

if TYPE_CHECKING:
    from torch import Generator, Tensor

SWEEPS = 12  # a spectrum that decays is found to a fraction of a percent


def als(weight: Tensor, statistics: SiteStatistics) -> Fits:
    """Minimize the predicted increase of the loss from a random start, rank by rank.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram`` and ``output_gradient_gram``.
    """
    weight = weight.double()
    output_gram, input_gram = metric(statistics)
    assert output_gram is not None
    assert input_gram is not None
    if weight.shape[0] <= weight.shape[1]:
        return gather(weight, *_fit(weight, output_gram, input_gram))
    dropped, fitted = _fit(weight.T, input_gram, output_gram)
    turned = {
        rank: (LowRank(each.up.T, each.down.T), loss) for rank, (each, loss) in fitted.items()
    }
    return gather(weight, dropped, turned)


def _fit(
    weight: Tensor, output_gram: Tensor, input_gram: Tensor
) -> tuple[float, dict[int, tuple[LowRank, float]]]:
    """Fit every rank of the grid to a wide ``weight (out_features, in_features)``.

    Returns:
        The loss of dropping the weight, and factors and loss by rank.
    """
    import torch

    root = torch.linalg.cholesky(output_gram).T  # R
    weighted = root @ weight  # R W
    matrix = weighted @ torch.linalg.cholesky(input_gram)  # M
    gram = matrix @ matrix.T
    generator = torch.Generator().manual_seed(0)
    fitted = {}
    for rank in grid(len(matrix))[:-1]:
        basis = _alternate(gram, rank, generator)  # U, (out, rank)
        error = matrix - basis @ (basis.T @ matrix)
        lifted = torch.linalg.solve_triangular(root, basis, upper=True)  # R^-1 U
        factors = LowRank(weighted.T @ basis, lifted.T.contiguous())
        fitted[rank] = factors, 0.5 * float(error.square().sum())
    return 0.5 * float(matrix.square().sum()), fitted


def _alternate(gram: Tensor, rank: int, generator: Generator) -> Tensor:
    """Return the left factor of rank ``rank`` after the last sweep, orthonormal.

    The best ``V`` spans ``M^T U`` and the best ``U`` spans ``M V``: both steps together multiply
    by ``gram``, which is ``M M^T (out, out)``. Only the span matters: QR keeps it well conditioned.
    """
    import torch

    basis = torch.randn(len(gram), rank, generator=generator, dtype=gram.dtype)
    for _ in range(SWEEPS):
        basis = torch.linalg.qr(gram @ basis)[0]
    return basis


METHODS.register("als")(
    Method(
        als,
        metric,
        frozenset({"input_gram", "output_gradient_gram"}),
        "Lu, 2024, arXiv:2408.05883",
        nested=False,
        predicts_loss=True,
    )
)
