"""ASVD: activation-aware scaling of every input (Yuan et al., 2023, arXiv:2312.05821).

Minimizes ``1/2 ||(W - W') S||_F^2`` with ``S`` diagonal: the size of each input to the power
``ALPHA``. The paper takes the mean absolute value of the inputs; the root of their second moment,
which the Gram matrix has on its diagonal, stands in for it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.metric import damped, factorize_between
from edgelr.compress.methods.svd_llm import INPUT_DAMPING

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = 0.5  # the paper's choice; 0 is plain SVD, 1 whitens uncorrelated inputs


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh errors by the sizes of the inputs, as if those were uncorrelated."""
    assert statistics.input_gram is not None
    squares = damped(statistics.input_gram, INPUT_DAMPING).diagonal()  # (in_features,)
    return None, (squares**ALPHA).diag()  # S S^T: the root and the square cancel


def asvd(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Factorize ``weight`` with its columns scaled by the sizes of their inputs.

    Args:
        weight: dense weight, ``(out_features, in_features)``.
        statistics: statistics of the site; needs ``input_gram``.
    """
    return factorize_between(weight, *metric(statistics))


METHODS.register("asvd")(
    Method(asvd, metric, frozenset({"input_gram"}), "ASVD, Yuan et al., 2023, arXiv:2312.05821")
)
