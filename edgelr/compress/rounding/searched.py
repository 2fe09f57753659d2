"""Round to nearest on scales and zero points that are searched, weighed by the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.rounding import ROUNDING, ArrayMetric, Rounding
from edgelr.compress.rounding.grids import find_grid
from edgelr.core.vocabulary import LAYOUTS, Array, WeightPrecision


def searched(
    weight: Array, metric: ArrayMetric, precisions: Sequence[WeightPrecision]
) -> list[Blocks]:
    """Round to nearest, on the range of every block that costs least with the diagonal of ``H``.

    Args:
        weight: weight, ``(out_features, in_features)``.
        metric: metric ``(G, H)`` of the errors.
        precisions: quantized precisions.
    """
    _, input_gram = metric
    importance = None if input_gram is None else input_gram.diagonal()
    weight, found = weight.astype(np.float32), []
    for precision in precisions:
        grid = find_grid(weight, importance, LAYOUTS[precision])
        found.append(grid.blocks(grid.nearest(weight)))
    return found


ROUNDING.register("searched")(
    Rounding(searched, "ranges weighed by the inputs, as AWQ's, Lin et al., 2023, arXiv:2306.00978")
)
