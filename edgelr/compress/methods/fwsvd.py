"""FWSVD: rows weighted by their Fisher information (Hsu et al., 2022, arXiv:2207.00112).

Minimizes ``1/2 ||R (W - W')||_F^2`` with ``R`` diagonal. The paper weighs a row by the sum of the
empirical Fisher information of its weights. With Kronecker factors that sum is proportional to
``E[g_i^2]``, ``g_i`` the gradient of the loss at the row's output, and that is what is taken here.
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
    """Weigh errors by the squared gradient of each output, as if those were uncorrelated."""
    assert statistics.output_gradient_gram is not None
    squares = damped(statistics.output_gradient_gram, GRADIENT_DAMPING).diagonal()  # (out,)
    return (squares / statistics.units_per_token).diag(), None


def fwsvd(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Factorize ``weight`` with its rows scaled by the root of their Fisher information.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``output_gradient_gram``.
    """
    return factorize_between(weight, *metric(statistics))


METHODS.register("fwsvd")(
    Method(
        fwsvd,
        metric,
        frozenset({"output_gradient_gram"}),
        "FWSVD, Hsu et al., 2022, arXiv:2207.00112",
    )
)
