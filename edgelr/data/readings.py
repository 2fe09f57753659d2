"""What a linear of a graph multiplies: rows of features, cut out of the value that it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgelr.core.vocabulary import Array

PATCHES = 2**23  # values of patches in memory at once


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that a linear reads, and where its features are.

    Attributes:
        value: name in the graph.
        axis: axis of the features: the last; the last but one, where the weight is on the left.
    """

    value: str
    axis: int = -1

    def rows(self, x: Array) -> Iterator[Array]:
        """Cut a value into rows, ``(positions, in_features)``."""
        features = np.moveaxis(x, self.axis, -1) if x.ndim > 1 else x
        yield features.reshape(-1, features.shape[-1])


@dataclass(frozen=True, slots=True)
class PatchReading(Reading):
    """A value that a convolution reads, in patches: their channels are features, place by place.

    Attributes:
        kernel: sizes of a patch.
        strides: steps from patch to patch.
        dilations: steps inside a patch.
        pads: zeros before every axis, and then behind every axis.
        auto_pad: rule of ONNX that finds the zeros, or NOTSET.
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    def rows(self, x: Array) -> Iterator[Array]:
        """Cut images, ``(images, channels, *sizes)``, into patches, a few at a time."""
        axes = len(self.kernel)
        spans = self._spans()
        around = [(0, 0), *self._around(x.shape[2:], spans)]
        for image in x:
            windows = sliding_window_view(np.pad(image, around), spans, tuple(range(1, axes + 1)))
            steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
            patches = windows[(slice(None), *steps)]  # (channels, *positions, *kernel)
            patches = np.moveaxis(patches, 0, axes)
            size = math.prod(patches.shape[1:])
            few = max(1, PATCHES // max(1, size))
            for start in range(0, len(patches), few):
                yield patches[start : start + few].reshape(-1, math.prod(patches.shape[axes:]))

    def _spans(self) -> tuple[int, ...]:
        """Places that a patch reaches over."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple(step * (size - 1) + 1 for size, step in pairs)

    def _around(self, sizes: tuple[int, ...], spans: tuple[int, ...]) -> list[tuple[int, int]]:
        """Zeros before and behind every axis."""
        if not self.auto_pad.startswith("SAME"):
            axes = len(self.kernel)
            return list(zip(self.pads[:axes], self.pads[axes:], strict=True))
        found = []
        for size, span, step in zip(sizes, spans, self.strides, strict=True):
            total = max(0, (-(-size // step) - 1) * step + span - size)
            less, more = total // 2, total - total // 2
            found.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return found
