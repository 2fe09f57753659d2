"""Weights in 8 or 4 bits, as ONNX Runtime's MatMulNBits stores them.

Every output has its inputs in blocks of neighbours; a block has one scale and one zero point, and
its integers lie between them. ONNX Runtime's own kernels round; what is computed with here is
what its kernel computes with at accuracy level 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelr.core.vocabulary import BLOCK_SIZE, WEIGHT_BITS, WeightPrecision


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix of ``in_features`` rows.

    Attributes:
        packed: integers, lower half of a byte first, ``(out_features, blocks, bytes)``, uint8.
        scales: step of every block, ``(out_features, blocks)``, float32.
        zero_points: integers of zero, packed alike, ``(out_features, bytes)``, uint8.
        in_features: number of rows; the last block may be longer.
        bits: bits of an integer, 4 or 8.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]
    in_features: int
    bits: int

    @property
    def out_features(self) -> int:
        return len(self.packed)

    def dense(self) -> NDArray[np.float32]:
        """Return the matrix that it stands for, ``(in_features, out_features)``."""
        outputs, count = self.scales.shape
        zero = _unpacked(self.zero_points, self.bits)[:, :count, None]
        values = _unpacked(self.packed, self.bits)
        matrix = (values - zero) * self.scales[..., None]
        flat: NDArray[np.float32] = matrix.reshape(outputs, -1)[:, : self.in_features].T
        return np.ascontiguousarray(flat)


@dataclass(frozen=True, slots=True)
class QuantizedLoss:
    """Predicted loss of a group in one precision of its weights.

    Attributes:
        dense: predicted loss of its weights, rounded.
        product: predicted loss of the rounded factors, by number of kept components, ``(k + 1,)``.
    """

    dense: float
    product: NDArray[np.float64]


def quantize(weight: NDArray[np.float32], precision: WeightPrecision) -> Blocks:
    """Round a matrix ``(in_features, out_features)`` to the nearest that can be stored."""
    # What MatMulNBitsQuantizer calls. Its module sets up logging for the whole process.
    from onnxruntime.capi import _pybind_state as kernels

    bits, (inputs, outputs) = WEIGHT_BITS[precision], weight.shape
    blocks = -(-inputs // BLOCK_SIZE)
    padded = np.zeros((blocks * BLOCK_SIZE, outputs), np.float32)
    padded[:inputs] = weight
    packed = np.zeros((outputs, blocks, BLOCK_SIZE * bits // 8), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    zero_points = np.zeros((outputs, -(-blocks * bits // 8)), np.uint8)
    run = kernels.quantize_matmul_8bits if bits == 8 else kernels.quantize_matmul_4bits
    symmetric = False
    run(packed, padded, scales, zero_points, BLOCK_SIZE, outputs, inputs, symmetric)
    return Blocks(packed, scales, zero_points, inputs, bits)


def _unpacked(values: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """Bytes as numbers along the last axis."""
    if bits == 8:
        return values.astype(np.float32)
    halves = np.stack([values & 15, values >> 4], axis=-1)
    return halves.reshape(*values.shape[:-1], -1).astype(np.float32)
