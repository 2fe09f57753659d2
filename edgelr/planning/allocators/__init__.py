"""Allocations: how a budget of bytes is spread over the groups. Numpy and the standard library."""

from __future__ import annotations

from edgelr.core.registry import Registry
from edgelr.planning.candidates import Allocator

ALLOCATORS: Registry[Allocator] = Registry(
    "allocator", package="edgelr.planning.allocators", group="edgelr.allocators"
)

ONE_KNOB = frozenset({"threshold", "uniform", "welore"})
"""Allocators that look at every group by itself, and so cannot choose between groups."""

__all__ = ["ALLOCATORS", "ONE_KNOB"]
