"""What a form stores of a linear: shapes, and their bytes in a file and in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import (
    LAYOUTS,
    PRECISION_BYTES,
    BlockLayout,
    Form,
    Precision,
    WeightPrecision,
)

Shape = tuple[int, int]
INDEX_BYTES = 8
PACKED_SCALE_BYTES = 4
PACKED_INPUTS = {2: 256}  # that kernels fill up to, by the bits of an integer
LEAST_SAVING = 1 / 8  # of the dense bytes: what the further nodes of a small product cost in time


@dataclass(frozen=True, slots=True)
class Stored:
    """Shapes of the matrices that a group stores, ``(inputs, outputs)``.

    Attributes:
        shared: matrices stored once for all sites; empty for a site alone.
        own: the matrices of each site.
        indices: length of a permutation, int64 as ONNX wants it; no parameters.
    """

    shared: tuple[Shape, ...]
    own: tuple[tuple[Shape, ...], ...]
    indices: int = 0

    @property
    def matrices(self) -> tuple[Shape, ...]:
        return (*self.shared, *(shape for own in self.own for shape in own))

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.matrices))


def stored(form: Form, group: SiteGroup, rank: int) -> Stored:
    """List what ``form`` stores for the sites of ``group``."""
    rows, columns = group.in_features, group.out_features
    if form == "dense":
        return Stored((), tuple(((site.in_features, site.out_features),) for site in group.sites))
    if form == "tied":
        return Stored(((rows, columns),), tuple(() for _ in group.sites))
    if form == "kronecker":
        (n1, n2), (m1, m2) = nearest_divisors(rows), nearest_divisors(columns)
        return Stored((), (((rank * n1, m1), (n2, rank * m2)),))
    pivots = 0 if form == "low_rank" else rank
    if len(group.sites) > 1:
        ups = tuple(((rank, site.out_features),) for site in group.sites)
        return Stored(((rows - pivots, rank),), ups, rows if pivots else 0)
    if form == "pivoted" and columns <= rows:
        return Stored((), (((rows, rank), (rank, columns - rank)),), columns)
    return Stored((), (((rows - pivots, rank), (rank, columns)),), rows if pivots else 0)


def matrix_bytes(shape: Shape, weights: WeightPrecision, values: Precision) -> int:
    """Bytes of a matrix in a file; see ``tensor_bytes``."""
    return sum(tensor_bytes(shape, weights, values))


def tensor_bytes(shape: Shape, weights: WeightPrecision, values: Precision) -> tuple[int, ...]:
    """Bytes of every tensor that stores a matrix: numbers, and scales and zero points of blocks.

    Args:
        shape: ``(inputs, outputs)``; blocks run along the inputs, and the last one is filled up.
        weights: precision that the matrix is stored in.
        values: precision of what it is multiplied with, and of stored scales.
    """
    inputs, outputs = shape
    if weights in PRECISION_BYTES:
        return (inputs * outputs * PRECISION_BYTES[weights],)
    layout = LAYOUTS[weights]
    blocks = layout.blocks(inputs)
    packed, zero_points = blocks * _block_bytes(layout), -(-blocks * layout.bits // 8)
    return outputs * packed, outputs * blocks * PRECISION_BYTES[values], outputs * zero_points


def packed_bytes(shape: Shape, weights: WeightPrecision) -> int:
    """Bytes of a matrix ``(inputs, outputs)`` in the layout of ONNX Runtime's CPU kernels.

    Quantized weights have a scale and a sum of every block beside them, both float32 (measured with
    release 1.31 on x86-64, accuracy level 4; the zero points are in the sums).
    """
    inputs, outputs = shape
    if weights in PRECISION_BYTES:
        return inputs * outputs * PRECISION_BYTES[weights]
    layout = LAYOUTS[weights]
    tile = max(layout.block_size, PACKED_INPUTS.get(layout.bits, 0))
    blocks = -(-inputs // tile) * tile // layout.block_size
    return outputs * blocks * (_block_bytes(layout) + 2 * PACKED_SCALE_BYTES)


def _block_bytes(layout: BlockLayout) -> int:
    """Bytes of the integers of a block."""
    return layout.block_size * layout.bits // 8


def nearest_divisors(size: int) -> tuple[int, int]:
    """Write ``size`` as ``a * b`` with ``a`` the largest divisor up to its root."""
    root = math.isqrt(size)
    first = next(divisor for divisor in range(root, 0, -1) if size % divisor == 0)
    return first, size // first


def largest_rank(form: Form, group: SiteGroup) -> int:
    """The largest rank with which ``form`` can be stored."""
    full = min(group.in_features, group.out_features)
    if form == "kronecker":
        n1, n2 = nearest_divisors(group.in_features)
        m1, m2 = nearest_divisors(group.out_features)
        return min(m1 * n1, m2 * n2)
    if form == "pivoted":
        small = group.in_features if len(group.sites) > 1 else full
        return min(full, small - 1)
    return full
