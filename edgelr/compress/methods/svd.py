"""Truncated SVD of the weight itself (Eckart and Young, 1936).

Needs no data and minimizes ``1/2 ||W - W'||_F^2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.compress.factors import Decomposition
from edgelr.compress.methods import METHODS, ErrorMetric, Method, SiteStatistics
from edgelr.compress.methods.metric import factorize_between

if TYPE_CHECKING:
    from torch import Tensor


def metric(statistics: SiteStatistics) -> ErrorMetric:
    """Weigh every weight alike."""
    del statistics
    return None, None


def svd(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Factorize ``weight (out_features, in_features)`` in the Frobenius norm."""
    return factorize_between(weight, *metric(statistics))


METHODS.register("svd")(Method(svd, metric, frozenset(), "Eckart and Young, 1936"))
