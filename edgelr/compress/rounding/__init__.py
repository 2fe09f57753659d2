"""Roundings: how the integers, scales and zero points of a quantized matrix are found.

They are of numpy alone: graphs are rounded without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgelr.compress.block_quantized import Blocks
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Array, WeightPrecision

ArrayMetric: TypeAlias = "tuple[Array | None, Array | None]"
"""``(G, H)`` as arrays: an error ``E (out, in)`` costs ``1/2 tr(E^T G E H)``; None is the
identity."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """A way to round a matrix.

    Attributes:
        round: function of a weight ``(out_features, in_features)``, its metric and precisions,
            that gives the stored matrix in each; several at once share what they have in common.
        paper: publication, with its year and arXiv id.
    """

    round: Callable[[Array, ArrayMetric, Sequence[WeightPrecision]], list[Blocks]]
    paper: str


ROUNDING: Registry[Rounding] = Registry(
    "rounding", package="edgelr.compress.rounding", group="edgelr.roundings"
)

__all__ = ["ROUNDING", "ArrayMetric", "Rounding"]
