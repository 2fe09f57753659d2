"""Which quantized precisions a device multiplies fast: facts about ONNX Runtime's MatMulNBits.

Measured with release 1.31 on x86-64: on the CPU provider at accuracy level 4, which multiplies in
int8, every layout of 2, 4 and 8 bits has a kernel; in float32 only that of 4 bits has, and the
others take a thousand times longer. The CUDA provider has kernels for 4 and 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection

from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.device.profile import DeviceProfile

INT8_PRODUCTS = 4  # accuracy level of MatMulNBits
_FLOAT_BITS, _CUDA_BITS = (4,), (4, 8)


def fast_precisions(device: DeviceProfile) -> tuple[WeightPrecision, ...]:
    """List the quantized precisions that a device has fast kernels for."""
    if device.provider == "cuda":
        return tuple(name for name, each in LAYOUTS.items() if each.bits in _CUDA_BITS)
    return fast_on_cpu(device.accuracy_level)


def fast_on_cpu(accuracy_level: int) -> tuple[WeightPrecision, ...]:
    """List the quantized precisions that the CPU provider multiplies fast at an accuracy level."""
    every = accuracy_level == INT8_PRODUCTS
    return tuple(name for name, each in LAYOUTS.items() if every or each.bits in _FLOAT_BITS)


def measured_as(precision: WeightPrecision, measured: Collection[str]) -> WeightPrecision:
    """Name the precision of a table of times that is most like another one."""
    if precision in measured or precision not in LAYOUTS:
        return precision
    return "int8" if LAYOUTS[precision].bits == 8 else "int4"
