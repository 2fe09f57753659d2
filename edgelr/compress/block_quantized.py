"""Weights in 8, 4 or 2 bits, as ONNX Runtime's MatMulNBits stores them.

Every output has its inputs in blocks of neighbours; a block has one scale and one zero point, and
its integers lie between them. What is computed with here is what ONNX Runtime's kernel computes
with at accuracy level 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelr.core.vocabulary import LAYOUTS, BlockLayout, WeightPrecision


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix of ``in_features`` rows.

    Attributes:
        packed: integers, lowest bits of a byte first, ``(out_features, blocks, bytes)``, uint8.
        scales: step of every block, ``(out_features, blocks)``, float32.
        zero_points: integers of zero, packed alike, ``(out_features, bytes)``, uint8.
        in_features: number of rows; the last block may be longer.
        layout: bits of an integer, and size of a block.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]
    in_features: int
    layout: BlockLayout

    @property
    def out_features(self) -> int:
        return len(self.packed)

    def dense(self) -> NDArray[np.float32]:
        """Return the matrix that it stands for, ``(in_features, out_features)``."""
        outputs, count = self.scales.shape
        zero = _unpacked(self.zero_points, self.layout.bits)[:, :count, None]
        values = _unpacked(self.packed, self.layout.bits)
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
    """Round a matrix ``(in_features, out_features)`` to the nearest, as ONNX Runtime's quantizer.

    The range of a block is from its smallest to its largest number, and holds zero.
    """
    # What MatMulNBitsQuantizer calls. Its module sets up logging for the whole process.
    from onnxruntime.capi import _pybind_state as kernels

    layout, (inputs, outputs) = LAYOUTS[precision], weight.shape
    bits, size = layout.bits, layout.block_size
    blocks = layout.blocks(inputs)
    padded = np.zeros((blocks * size, outputs), np.float32)
    padded[:inputs] = weight
    packed = np.zeros((outputs, blocks, size * bits // 8), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    zero_points = np.zeros((outputs, -(-blocks * bits // 8)), np.uint8)
    run = getattr(kernels, f"quantize_matmul_{bits}bits")
    symmetric = False
    run(packed, padded, scales, zero_points, size, outputs, inputs, symmetric)
    return Blocks(packed, scales, zero_points, inputs, layout)


def pack(
    integers: NDArray[np.uint8],
    scales: NDArray[np.float32],
    zero_points: NDArray[np.uint8],
    layout: BlockLayout,
) -> Blocks:
    """Store integers that are known.

    Args:
        integers: integer of every weight, ``(out_features, in_features)``.
        scales: step of every block, ``(out_features, blocks)``.
        zero_points: integer of zero of every block, ``(out_features, blocks)``.
        layout: bits of an integer, and size of a block.
    """
    outputs, inputs = integers.shape
    blocks = layout.blocks(inputs)
    zero = np.repeat(zero_points[:, -1:], blocks * layout.block_size - inputs, axis=1)
    whole = np.concatenate((integers, zero), axis=1)  # padding stands for zero
    packed = _packed(whole, layout.bits).reshape(outputs, blocks, -1)
    return Blocks(packed, scales, _packed(zero_points, layout.bits), inputs, layout)


def join(parts: Sequence[Blocks]) -> Blocks:
    """Put matrices of the same inputs side by side: their outputs one after the other."""
    arrays = ("packed", "scales", "zero_points")
    packed, scales, zero_points = (
        np.concatenate([getattr(part, name) for part in parts]) for name in arrays
    )
    return Blocks(packed, scales, zero_points, parts[0].in_features, parts[0].layout)


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Numbers along the last axis as bytes, the last one filled up with zeros."""
    per_byte = 8 // bits
    missing = -values.shape[-1] % per_byte
    whole = np.pad(values, ((0, 0), (0, missing)))
    parts = whole.reshape(len(values), -1, per_byte) << np.arange(0, 8, bits, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=-1)
    return packed


def _unpacked(values: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """Bytes as numbers along the last axis."""
    if bits == 8:
        return values.astype(np.float32)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (values[..., None] >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(*values.shape[:-1], -1).astype(np.float32)
