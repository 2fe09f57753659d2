"""Nearest sum of Kronecker products (Van Loan and Pitsianis, 1993; survey: arXiv:2408.05883, 2024).

Rearrange ``W`` so that each of its ``m2 x n2`` blocks becomes a row: a Kronecker product becomes a
product of two vectors, and the nearest sum of them a truncated SVD. With Kronecker products as
metrics too, ``G = G1 x G2`` and ``H = H1 x H2``, it minimizes ``1/2 tr(D^T G D H)``, which is
``1/2 tr(B^T (G1 x H1) B (G2 x H2))`` for the rearranged difference ``B``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import KroneckerTerms, LowRank
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.fisher import metric as fisher_metric
from edgelr.compress.methods.metric import factorize_between
from edgelr.device.storage import nearest_divisors

if TYPE_CHECKING:
    from torch import Tensor

ITERATIONS = 30  # of the power method: 1e-9 from the nearest product, even of five samples' Gram


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh errors as ``fisher`` does, with each Gram replaced by the nearest Kronecker product."""
    import torch

    (g1, g2), (h1, h2) = _metric_factors(statistics)
    return torch.kron(g1, g2), torch.kron(h1, h2)


def kronecker(weight: Tensor, statistics: SiteStatistics) -> KroneckerTerms:
    """Minimize the predicted increase of the loss over sums of Kronecker products.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram`` and ``output_gradient_gram``.
    """
    import torch

    from edgelr.compress.forms import balance

    (g1, g2), (h1, h2) = _metric_factors(statistics)
    m1, m2, n1, n2 = len(g1), len(g2), len(h1), len(h2)
    blocks = weight.double().reshape(m1, m2, n1, n2).transpose(1, 2).reshape(m1 * n1, m2 * n2)
    terms = factorize_between(blocks, torch.kron(g1, h1), torch.kron(g2, h2))
    even = balance(LowRank(terms.down, terms.up))  # terms are stored as they are
    left = even.up.reshape(-1, m1, n1)
    right = even.down.T.reshape(-1, m2, n2)
    return KroneckerTerms(left.contiguous(), right.contiguous(), terms.loss)


def _metric_factors(statistics: SiteStatistics) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return ``(G1, G2)`` and ``(H1, H2)``."""
    output_gram, input_gram = fisher_metric(statistics)
    assert output_gram is not None
    assert input_gram is not None
    return nearest_product(output_gram), nearest_product(input_gram)


def nearest_product(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Approximate ``gram (n, n)`` by ``kron(first (a, a), second (b, b))``.

    ``(a, b)`` are the nearest divisors of ``n``.

    Each step of the power method weighs the blocks of a positive definite matrix by a positive
    definite one. Started from the identity, the factors therefore stay positive definite, no worse
    conditioned than the damped ``gram``, and their signs are settled.
    """
    import torch

    a, b = nearest_divisors(len(gram))
    pairs = gram.reshape(a, b, a, b).transpose(1, 2).reshape(a * a, b * b)
    first = torch.eye(a, dtype=gram.dtype).flatten()
    for _ in range(ITERATIONS):
        second = (first / first.norm()) @ pairs
        second = second / second.norm()
        first = pairs @ second
    return _symmetric(first.reshape(a, a)), _symmetric(second.reshape(b, b))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2  # rounding


METHODS.register("kronecker")(
    Method(
        kronecker,
        metric,
        frozenset({"input_gram", "output_gradient_gram"}),
        "Van Loan and Pitsianis, 1993; Lu, 2024, arXiv:2408.05883",
        predicts_loss=True,
        forms=frozenset({"dense", "kronecker"}),
    )
)
