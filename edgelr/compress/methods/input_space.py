"""Projection on the principal inputs: the row-space relative of arXiv:2401.16438 (2024).

``W' = W V V^T`` with ``V`` the directions in which the inputs vary most: ``V^T`` is kept once and
every output is read from there. It looks at the inputs only, hence the components come in the
order of the inputs' variance ``lambda_k``, and it is not the best of its rank: keeping ``r``
components costs ``1/2 sum_{k >= r} lambda_k ||W v_k||^2`` of the squared error of the output,
``1/2 tr(D H D^T)``, which ``svd_llm`` minimizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, Method, SiteStatistics
from edgelr.compress.methods.metric import sorted_eigenvectors, tail_loss
from edgelr.compress.methods.svd_llm import metric

if TYPE_CHECKING:
    from torch import Tensor


def input_space(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Project the inputs on their principal directions.

    A wide weight reads a subspace of its inputs only. The directions are sought there, so that as
    many of them as there are outputs restore the weight.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram``.
    """
    import torch

    weight = weight.double()
    _, gram = metric(statistics)
    assert gram is not None
    if weight.shape[0] < weight.shape[1]:
        basis = torch.linalg.qr(weight.T)[0]  # of what is read, (in, out)
        variances, vectors = sorted_eigenvectors(basis.T @ gram @ basis)
        vectors = basis @ vectors  # V, (in, k)
    else:
        variances, vectors = sorted_eigenvectors(gram)
    product = weight @ vectors  # W V, (out, k)
    loss = tail_loss(variances * product.square().sum(0))
    return Decomposition(vectors.contiguous(), product.T.contiguous(), loss)


METHODS.register("input_space")(
    Method(
        input_space,
        metric,
        frozenset({"input_gram"}),
        "PCA of the inputs; row space, 2024, arXiv:2401.16438",
        nested=False,
    )
)
