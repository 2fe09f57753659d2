"""Speech: an encoder-decoder whose sources are sounds, all of one length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.vocabulary import Array
from edgelr.data.audio import list_sounds, read_sounds, transcripts
from edgelr.data.file_lists import SOUNDS, listed, spread_lines
from edgelr.runtime.evaluators import Known
from edgelr.runtime.graphs import random_values
from edgelr.runtime.requests import Evaluation
from edgelr.runtime.runners import RUNNERS
from edgelr.runtime.runners.encoder_decoder import EncoderDecoderRunner, Targets
from edgelr.runtime.runners.files import named_source


@RUNNERS.register("speech")
class SpeechRunner(EncoderDecoderRunner):
    """An encoder of sounds ``(mel_bins, frames)`` and its decoder."""

    reads = "input_features"
    batch = 4  # scores of sounds fill the memory

    @classmethod
    def source_tokens(cls, bundle: ExportBundle, asked: int) -> int:
        """Tokens that the encoder makes of every sound."""
        assert bundle.manifest.sound is not None, "this bundle reads no sounds"
        return bundle.manifest.sound.tokens

    def samples(self, evaluation: Evaluation) -> Targets | Known:
        """Read sounds, and draw an answer to each; with what is said where that is told."""
        sound = evaluation.original.manifest.sound
        assert sound is not None, "this bundle reads no sounds"
        sounds = list_sounds(named_source(evaluation, SOUNDS))
        sounds = spread_lines(sounds, evaluation.size.pairs)
        features = list(read_sounds(listed(sounds), sound))
        drawn = self.draw_targets(evaluation.original, features, evaluation.progress)
        said = transcripts(sounds)
        return Known(drawn, said) if said else drawn

    def together(self, sources: Sequence[Array]) -> tuple[Array, Array | None]:
        """Make a batch of sounds, which needs no mask."""
        return np.stack(sources), None

    def random_source(self, rows: int, tokens: int) -> Array:
        """Draw sounds; their tokens are those of the model."""
        _, *sizes = self.encoder.inputs[self.reads].shape
        return random_values(rows, *(size for size in sizes if isinstance(size, int)))
