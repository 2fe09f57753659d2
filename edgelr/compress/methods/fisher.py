"""Two-sided factorization in the Kronecker-factored Fisher metric.

With ``H = E[x x^T]`` and ``G = E[g g^T]``, ``g`` the gradient of the loss at the output, the
second-order cost of replacing ``W`` by ``W'`` is ``1/2 tr(D^T G D H)`` with ``D = W - W'`` (K-FAC,
Martens and Grosse, 2015, arXiv:1503.05671). It is counted in units of the *loss*, in every layer
alike: that is what makes one global budget over all layers meaningful.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.metric import damped, factorize_between
from edgelr.compress.methods.svd_llm import INPUT_DAMPING

if TYPE_CHECKING:
    from torch import Tensor

GRADIENT_DAMPING = 0.1  # gradients are sampled on fewer tokens than inputs, and are noisier


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh errors by the inputs and by the gradients at the output, per loss term."""
    assert statistics.input_gram is not None
    assert statistics.output_gradient_gram is not None
    gradients = damped(statistics.output_gradient_gram, GRADIENT_DAMPING)
    return (
        gradients / statistics.units_per_token,
        damped(statistics.input_gram, INPUT_DAMPING),
    )


def fisher(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Minimize the predicted increase of the loss, in nats per loss term.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram`` and ``output_gradient_gram``.
    """
    return factorize_between(weight, *metric(statistics))


METHODS.register("fisher")(
    Method(
        fisher,
        metric,
        frozenset({"input_gram", "output_gradient_gram"}),
        "K-FAC metric, Martens and Grosse, 2015, arXiv:1503.05671",
        predicts_loss=True,
    )
)
