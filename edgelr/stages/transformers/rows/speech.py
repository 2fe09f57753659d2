"""Rows of models of speech: sounds, and the model's own transcripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.errors import InputError
from edgelr.core.inputs import SoundInput
from edgelr.data.audio import list_sounds, read_sounds, transcripts
from edgelr.data.calibration import from_sounds, load_tokenizer
from edgelr.data.file_lists import SOUNDS, spread_evenly
from edgelr.data.text import PROMPTS, Texts
from edgelr.model.generate import start_of
from edgelr.stages.transformers.rows import ROWS, Excerpt
from edgelr.stages.transformers.rows.encoder_decoder import EncoderDecoderRows
from edgelr.stages.transformers.text_selection import choose_files

if TYPE_CHECKING:
    from edgelr.core.dimensions import ModelShape
    from edgelr.core.settings import Settings
    from edgelr.core.vocabulary import Array
    from edgelr.data.calibration import Calibration
    from edgelr.device.profile import DeviceProfile
    from edgelr.model.loaded import LoadedModel
    from edgelr.planning.recipes import Recipe
    from edgelr.stages.transformers.subject import ModelSubject

USUAL_SOUNDS = 128  # half a minute each, and every token of its transcript has a loss


class SpeechRows(EncoderDecoderRows):
    """Sounds as sources, each of as many positions as any other."""

    sources_together = 4  # longer than texts

    def require_lengths(self, model: LoadedModel, settings: Settings) -> None:
        """Refuse a length of a sound; that of its transcript may be asked for."""
        if settings.calibration_length is not None:
            raise InputError(
                f"--calibration-length asks for {settings.calibration_length:,} tokens; "
                f"{model.source} makes {sound_of(model).tokens:,} of every sound. Leave the option "
                f"away."
            )
        super().require_lengths(model, settings)

    def workload(
        self, model: LoadedModel, settings: Settings, device: DeviceProfile
    ) -> tuple[DeviceProfile, ModelShape, int]:
        _, _, context = super().workload(model, settings, device)
        return device.reading(sound_of(model).tokens, context), model.dimensions, context

    def require(self, model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
        """Refuse a folder without what writes text, which is missed later otherwise."""
        load_tokenizer(model.folder)
        start_of(model)
        super().require(model, settings, recipe)

    def read(self, source: Path) -> str:
        return list_sounds(source)

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        texts = choose_files(SOUNDS, self.read, settings.calibration, settings.evaluation)
        transcripts(texts.evaluation)  # what counts their errors should be missed before the work
        return texts

    def usual_tokens(self, model: LoadedModel, tokens: int) -> int:
        return USUAL_SOUNDS * sound_of(model).tokens

    def sources(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        """Read as many sounds as have the positions that are asked for."""
        sound = sound_of(subject.model)
        paths = spread_evenly(excerpt.text, math.ceil(excerpt.tokens / sound.tokens))
        return from_sounds(read_sounds(paths, sound), sound.tokens, excerpt.name)

    def parity_inputs(
        self, subject: ModelSubject, calibration: Sequence[Calibration]
    ) -> list[Array]:
        """Give features ``(mel_bins, frames)`` of a few sounds that calibrate."""
        return list(calibration[0].inputs.source[: len(PROMPTS)])


def sound_of(model: LoadedModel) -> SoundInput:
    """The preparation of a sound that the model reads."""
    assert model.sound is not None
    return model.sound


ROWS.register("speech")(SpeechRows())
