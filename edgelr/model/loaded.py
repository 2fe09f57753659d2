"""A model in memory, with everything that is needed to trace it and to run it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.inputs import ImageInput, Matching, Prompts, SoundInput
from edgelr.core.vocabulary import Pooling, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.model.exporter import Exporter


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, with what is needed to trace it and to run it again.

    ``folder`` is a Hugging Face folder with the same weights in float32, the configuration and the
    tokenizer: what the graph tracer and the bundle read. ``digest`` identifies the weights.
    ``pooling`` is None for models that do not embed, ``image`` and ``sound`` for those that read
    text, and ``mask_token``, the id that stands for what is to be filled in, for those that fill in
    nothing. ``matching`` is None for models that do not compare texts with images, and ``prompts``
    are the texts that a run is about.
    """

    module: nn.Module
    exporter: Exporter
    task: Task
    modality: str
    folder: Path
    source: str
    revision: str | None
    digest: str
    pooling: Pooling | None = None
    image: ImageInput | None = None
    mask_token: int | None = None
    sound: SoundInput | None = None
    matching: Matching | None = None
    prompts: Prompts | None = None

    def example_inputs(self, rows: int, tokens: int) -> dict[str, Tensor]:
        """Make random inputs of one forward pass; an image or a sound has always its own size."""
        size = tokens if self.image is None else self.image.side
        return self.exporter.example_inputs(self.module.config, rows, size)
