"""Truncated SVD of the weight itself (Eckart and Young, 1936).

Needs no data and minimizes ``1/2 ||W - W'||_F^2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.methods import METHODS, Method
from edgelr.methods.metric import factorize_between
from edgelr.types import Decomposition, SiteStatistics

if TYPE_CHECKING:
    from torch import Tensor


def svd(weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    """Factorize ``weight (out_features, in_features)`` in the Frobenius norm."""
    del statistics
    return factorize_between(weight, None, None)


METHODS.register("svd")(Method(svd, frozenset(), "Eckart and Young, 1936"))
