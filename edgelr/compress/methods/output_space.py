"""Projection on the principal outputs: the column-space relative of arXiv:2401.16438 (2024).

Minimizes ``1/2 ||R (W - W')||_F^2`` with ``R^T R = G``, the Gram matrix of the gradients at the
output: ``W' = R^-1 U U^T R W``, with ``U`` the principal directions of the outputs as the loss sees
them, for inputs of which nothing is known. Its counterpart is ``input_space``; ``fisher`` looks at
both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.fisher import GRADIENT_DAMPING
from edgelr.compress.methods.metric import damped, factorize_between

if TYPE_CHECKING:
    from torch import Tensor


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh errors by the gradients at the output, per loss term."""
    assert statistics.output_gradient_gram is not None
    gradients = damped(statistics.output_gradient_gram, GRADIENT_DAMPING)
    return gradients / statistics.units_per_token, None


def output_space(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Project the outputs on the directions that the loss feels most.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``output_gradient_gram``.
    """
    return factorize_between(weight, *metric(statistics))


METHODS.register("output_space")(
    Method(
        output_space,
        metric,
        frozenset({"output_gradient_gram"}),
        "PCA of the outputs; column space, 2024, arXiv:2401.16438",
    )
)
