"""Models of speech: an encoder of sounds, and a decoder that predicts their transcripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgelr.model.losses import LOSSES
from edgelr.model.losses.encoder_decoder import EncoderDecoderLoss
from edgelr.model.processors import sound_input

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.core.vocabulary import Task
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel


class SpeechLoss(EncoderDecoderLoss):
    """One loss for every token of a transcript; sounds have one length, and no padding."""

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read how sounds are prepared."""
        return {"sound": sound_input(module, folder)}

    def source_shape(self, model: LoadedModel, given: dict[str, Tensor]) -> torch.Size:
        assert model.sound is not None
        return torch.Size((len(given["input_features"]), model.sound.tokens))

    def source_inputs(self, source: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"input_features": source}


LOSSES.register("speech")(SpeechLoss())
