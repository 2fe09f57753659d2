"""SVD-LLM: truncation-aware data whitening (Wang et al., 2024, arXiv:2403.07378).

Plain SVD minimizes the error of the weight. SVD-LLM minimizes the error of the *output*, by
taking the SVD of ``weight @ root``, where ``root @ root.T`` is the inputs' Gram matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.metric import damped, factorize_between

if TYPE_CHECKING:
    from torch import Tensor

INPUT_DAMPING = 0.01  # share of the mean diagonal; less overfits a few thousand tokens


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh errors of the weight by the inputs that meet them."""
    assert statistics.input_gram is not None
    return None, damped(statistics.input_gram, INPUT_DAMPING)


def svd_llm(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Minimize ``1/2 E ||(W - W') x||^2``, the squared error of the output per token.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram``.
    """
    return factorize_between(weight, *metric(statistics))


METHODS.register("svd_llm")(
    Method(
        svd_llm, metric, frozenset({"input_gram"}), "SVD-LLM, Wang et al., 2024, arXiv:2403.07378"
    )
)
