"""Allocations: how a budget of bytes is spread over the groups. Numpy and the standard library."""

from __future__ import annotations

from edgelr.candidates import Allocator
from edgelr.registry import Registry

ALLOCATORS: Registry[Allocator] = Registry(
    "allocator", package="edgelr.allocators", group="edgelr.allocators"
)

ONE_KNOB = frozenset({"threshold", "uniform", "welore"})
"""Allocators that look at every group by itself, and so cannot choose between groups."""

__all__ = ["ALLOCATORS", "ONE_KNOB"]
