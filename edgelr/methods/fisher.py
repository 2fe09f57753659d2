"""Two-sided factorization in the Kronecker-factored Fisher metric.

With ``H = E[x x^T]`` and ``G = E[g g^T]``, ``g`` the gradient of the loss at the output, the
second-order cost of replacing ``W`` by ``W'`` is ``1/2 tr(D^T G D H)`` with ``D = W - W'`` (K-FAC,
Martens and Grosse, 2015, arXiv:1503.05671). It is counted in units of the *loss*, in every layer
alike: that is what makes one global budget over all layers meaningful.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.methods import METHODS, Method
from edgelr.methods.metric import damped, factorize_between
from edgelr.methods.svd_llm import INPUT_DAMPING
from edgelr.types import Decomposition, SiteStatistics

if TYPE_CHECKING:
    from torch import Tensor

GRADIENT_DAMPING = 0.1  # gradients are sampled on fewer tokens than inputs, and are noisier


def fisher(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Minimize the predicted increase of the loss, in nats per loss term.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: needs ``input_gram`` and ``output_gradient_gram``.
    """
    assert statistics.input_gram is not None
    assert statistics.output_gradient_gram is not None
    result = factorize_between(
        weight,
        damped(statistics.output_gradient_gram, GRADIENT_DAMPING),
        damped(statistics.input_gram, INPUT_DAMPING),
    )
    return Decomposition(result.down, result.up, result.loss / statistics.units_per_token)


METHODS.register("fisher")(
    Method(
        fisher,
        frozenset({"input_gram", "output_gradient_gram"}),
        "K-FAC metric, Martens and Grosse, 2015, arXiv:1503.05671",
    )
)
