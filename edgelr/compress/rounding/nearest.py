"""Round to nearest between the smallest and the largest number of a block, without any data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.compress.rounding import ROUNDING, ArrayMetric, Rounding
from edgelr.core.vocabulary import Array, WeightPrecision


def nearest(
    weight: Array, metric: ArrayMetric, precisions: Sequence[WeightPrecision]
) -> list[Blocks]:
    """Round as ONNX Runtime's quantizer of MatMulNBits does; the metric does not count.

    Args:
        weight: weight, ``(out_features, in_features)``.
        metric: metric ``(G, H)`` of the errors.
        precisions: quantized precisions.
    """
    del metric
    matrix = np.ascontiguousarray(weight.T, np.float32)
    return [quantize(matrix, precision) for precision in precisions]


ROUNDING.register("nearest")(Rounding(nearest, "ONNX Runtime's MatMulNBitsQuantizer"))
