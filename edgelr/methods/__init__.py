"""Decompositions: one published method per file, pure tensor functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgelr.registry import Registry
from edgelr.types import Decomposition, SiteStatistics

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["input_gram", "output_gradient_gram"]


@dataclass(frozen=True, slots=True)
class Method:
    """A decomposition and the statistics that it reads.

    ``decompose(weight, statistics)`` takes ``weight (out_features, in_features)`` in float64.
    """

    decompose: Callable[[Tensor, SiteStatistics], Decomposition]
    needs: frozenset[Need]
    paper: str


METHODS: Registry[Method] = Registry(
    "method",
    modules=("edgelr.methods.svd", "edgelr.methods.svd_llm", "edgelr.methods.fisher"),
    group="edgelr.methods",
)

__all__ = ["METHODS", "Method", "Need"]
