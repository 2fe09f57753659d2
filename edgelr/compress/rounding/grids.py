"""The numbers that a block can store: its scale and zero point, searched or as wide as the block.

A range of the block's numbers is divided into ``2**bits - 1`` steps. A narrower range has smaller
steps, and cuts off what lies outside: which is best depends on the numbers, and on what errors of
the block's inputs cost. For the integers that a range gives, the best scale has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelr.compress.block_quantized import Blocks, pack
from edgelr.core.vocabulary import Array, BlockLayout

RANGES: dict[int, tuple[float, ...]] = {  # shares of the whole range, by the bits of an integer
    8: (1.0,),  # narrower ones gain a per mille
    4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6),
    2: (1.0, 0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3),
}
CHUNK_NUMBERS = 2**17  # searched at a time: temporary values stay in the processor's cache
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class Grid:
    """Scales and zero points of a matrix.

    Attributes:
        scales: step of every block, ``(blocks, out_features)``, positive.
        zero_points: integer that stands for zero, ``(blocks, out_features)``, as floats.
        layout: bits of an integer, and size of a block.
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.float32]
    layout: BlockLayout

    @property
    def largest(self) -> int:
        """The largest integer."""
        return int(2**self.layout.bits - 1)

    def by_input(self, inputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scales and zero points of every weight, ``(in_features, out_features)`` both."""
        block_of = np.arange(inputs) // self.layout.block_size
        return self.scales[block_of], self.zero_points[block_of]

    def nearest(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nearest integers of a weight ``(out_features, in_features)``: ``(in, out)``, floats."""
        scales, zero_points = self.by_input(weight.shape[1])
        codes: NDArray[np.float32] = np.rint(weight.T / scales + zero_points)
        return np.clip(codes, 0, self.largest, out=codes)

    def blocks(self, integers: NDArray[np.float32]) -> Blocks:
        """Store integers of this grid, ``(in_features, out_features)``."""
        whole = np.ascontiguousarray(integers.T).astype(np.uint8)
        zero_points = np.ascontiguousarray(self.zero_points.T).astype(np.uint8)
        return pack(whole, np.ascontiguousarray(self.scales.T), zero_points, self.layout)


def find_grid(weight: NDArray[np.float32], importance: Array | None, layout: BlockLayout) -> Grid:
    """Find the grid on which rounding to nearest costs least, block by block.

    Args:
        weight: weight, ``(out_features, in_features)``.
        importance: cost of an error of each input, ``(in_features,)``; None where all cost the
            same.
        layout: bits of an integer, and size of a block.
    """
    outputs, inputs = weight.shape
    count, size = layout.blocks(inputs), layout.block_size
    cost = np.zeros((count * size, 1), np.float32)
    cost[:inputs, 0] = 1.0 if importance is None else importance
    cut = np.zeros((count * size, outputs), np.float32)
    cut[:inputs] = weight.T
    blocks, costs = cut.reshape(count, size, outputs), cost.reshape(count, size, 1)
    scales, zero_points = (np.empty((count, outputs), np.float32) for _ in range(2))
    each = max(1, CHUNK_NUMBERS // (size * outputs))
    for start in range(0, count, each):
        some = slice(start, start + each)
        scales[some], zero_points[some] = _best_range(blocks[some], costs[some], layout)
    return Grid(scales, zero_points, layout)


def _best_range(
    blocks: NDArray[np.float32], cost: NDArray[np.float32], layout: BlockLayout
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Try shares of the range of each block; keep the best of each.

    Args:
        blocks: numbers of blocks, ``(blocks, size, out_features)``.
        cost: cost of an error of each input, ``(blocks, size, 1)``.
        layout: bits of an integer, and size of a block.

    Returns:
        Scales and zero points, ``(blocks, out_features)``.
    """
    largest = np.float32(2**layout.bits - 1)
    low, high = blocks.min(axis=1).clip(max=0), blocks.max(axis=1).clip(min=0)
    best = np.full_like(low, np.inf)
    scales, zero_points = np.ones_like(low), np.zeros_like(low)
    for share in RANGES[layout.bits]:
        width = (high - low) * np.float32(share / largest)
        step = np.where(width > _TINY, width, np.ones_like(width))
        zero = np.rint(low * np.float32(-share) / step).clip(0, largest)
        codes = blocks / step[:, None]
        codes += zero[:, None]
        np.rint(codes, out=codes)
        np.clip(codes, 0, largest, out=codes)
        codes -= zero[:, None]
        scale = _fitted(codes, blocks, cost, step)
        codes *= scale[:, None]
        codes -= blocks
        error = ((codes * cost) * codes).sum(axis=1)
        better = error < best
        np.copyto(best, error, where=better)
        np.copyto(scales, scale, where=better)
        np.copyto(zero_points, zero, where=better)
    return scales, zero_points


def _fitted(
    codes: NDArray[np.float32],
    blocks: NDArray[np.float32],
    cost: NDArray[np.float32],
    step: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Solve for the scales of least error; the step of the range where there is no better one."""
    weighted = codes * cost
    fitted = (weighted * blocks).sum(axis=1)
    weighted *= codes
    square = weighted.sum(axis=1)
    solved = fitted / np.maximum(square, _TINY)
    return np.where((square > _TINY) & (solved > _TINY), solved, step)
