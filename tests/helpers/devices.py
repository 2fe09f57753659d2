"""Devices that were never built."""

from __future__ import annotations

from edgelr.device.profile import DeviceProfile, Figure, Kernels

GRID = (64, 256, 1024)


def measured(device: DeviceProfile, exponent: float = 1.0, node_us: float = 2.0) -> DeviceProfile:
    """A device whose products take a power of their operations, in nanoseconds."""
    rows = tuple(
        ("float32", tokens, inputs, outputs, (tokens * inputs * outputs) ** exponent / 1e3)
        for tokens in (1, 128)
        for inputs in GRID
        for outputs in GRID
    )
    kernels = Kernels(
        source="made up",
        threads=1,
        node=Figure(value=node_us, unit="us", source="made up", verified=False),
        vector=Figure(value=1e9, unit="GB/s", source="made up", verified=False),
        attention_node=Figure(value=0.0, unit="us", source="made up", verified=False),
        attention=Figure(value=1e9, unit="TFLOPS", source="made up", verified=False),
        products=rows,
    )
    return device.model_copy(update={"kernels": kernels})
