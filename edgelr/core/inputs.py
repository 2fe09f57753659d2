"""How images, audio and prompts become tensors, and rows of several tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How an image becomes the ``(3, side, side)`` that a model reads; in this order.

    Attributes:
        side: height and width of what the model reads, in pixels.
        tokens: number of tokens of an image: patches, and those that the model adds.
        resized: ``(height, width)`` whatever the shape of the image was, or ``(edge,)``: the
            shorter edge, where the shape stays.
        resample: Pillow's name of the filter, such as ``bicubic``.
        cropped: whether ``side`` is cut out of the middle.
        scale: factor of the values of a pixel, which are 0 to 255.
        mean: means that are subtracted from red, green and blue.
        std: standard deviations that red, green and blue are divided by.
    """

    side: int
    tokens: int
    resized: tuple[int, ...]
    resample: str
    cropped: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SoundInput:
    """How a sound becomes the ``(mel_bins, frames)`` that a model reads; in this order.

    Attributes:
        rate: samples per second, of one channel.
        samples: number of samples that are read: shorter sounds end in silence, longer are cut.
        window: samples of one Fourier transform, under a Hann window.
        hop: samples from one transform to the next; there is a frame for each.
        mel_bins: bands of equal width on Slaney's mel scale, from 0 Hz on.
        highest_hz: frequency at which the bands end.
        tokens: positions that the encoder makes of it.
    """

    rate: int
    samples: int
    window: int
    hop: int
    mel_bins: int
    highest_hz: float
    tokens: int

    @property
    def frames(self) -> int:
        return self.samples // self.hop


@dataclass(frozen=True, slots=True)
class Matching:
    """How texts and images are compared: a logit is ``scale`` times their cosine, plus ``bias``.

    Attributes:
        scale: factor of the cosine.
        bias: bias of every logit.
        tokens: length of the longest text.
        pad_token: stands behind shorter texts.
        padded: whether every text has ``tokens`` tokens, and padding is read like any other; there
            is no mask then, and each label has a probability of its own.
        prompts: one for each label, among which one is chosen.
    """

    scale: float
    bias: float
    tokens: int
    pad_token: int
    padded: bool
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompts:
    """Tokens of the texts among which one is chosen for every image; arrays, or tensors.

    Attributes:
        ids: ``(prompts, length)``.
        mask: the same shape, 1 for what is read.
    """

    ids: Any  # NDArray[np.int64] | Tensor
    mask: Any


@dataclass(frozen=True)
class SourceAndTarget:
    """Rows of a model that has an encoder and a decoder; arrays, or tensors.

    Attributes:
        source: inputs of the encoder: token ids ``(rows, source length)``, or sounds
            ``(rows, mel_bins, frames)``.
        source_mask: 1 for real positions, 0 for padding, ``(rows, source positions)``.
        target: token ids ``(rows, length + 1)``. The decoder reads all but the last, from its start
            token on, and predicts all but the first.
    """

    source: Any  # NDArray[Any] | Tensor
    source_mask: Any
    target: Any


def arrays_of(inputs: Any) -> tuple[Any, ...]:
    """List the arrays of a value such as ``SourceAndTarget``, or an array alone."""
    if not is_dataclass(inputs):
        return (inputs,)
    return tuple(getattr(inputs, each.name) for each in fields(inputs))


def with_arrays(inputs: Any, change: Callable[[Any], Any]) -> Any:
    """Change an array, or every array of a value such as ``SourceAndTarget``."""
    kind: Any = type(inputs)
    return kind(*map(change, arrays_of(inputs))) if is_dataclass(inputs) else change(inputs)
