"""Allocations: how a budget of bytes is spread over the groups. Numpy and the standard library."""

from __future__ import annotations

from edgelr.candidates import Allocator
from edgelr.registry import Registry

ALLOCATORS: Registry[Allocator] = Registry(
    "allocator",
    modules=(
        "edgelr.allocators.uniform",
        "edgelr.allocators.welore",
        "edgelr.allocators.lagrangian",
    ),
    group="edgelr.allocators",
)

__all__ = ["ALLOCATORS"]
