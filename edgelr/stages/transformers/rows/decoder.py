"""Rows of decoders: chunks of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.data.calibration import from_chunks
from edgelr.data.text import Texts
from edgelr.stages.transformers.rows import ROWS, Excerpt, ModalityRows
from edgelr.stages.transformers.text_selection import choose_texts

if TYPE_CHECKING:
    from edgelr.core.settings import Settings
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel
    from edgelr.stages.transformers.subject import ModelSubject

CHUNK_TOKENS = 1024


class DecoderRows(ModalityRows):
    """Chunks without special tokens; a decoder can also write the text that calibrates it."""

    selection_length = 512

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        return choose_texts(settings.calibration, settings.evaluation, can_generate=True)

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        length = excerpt.length or min(CHUNK_TOKENS, subject.model.longest_text)
        tokenizer = subject.tokenizer
        return from_chunks(excerpt.text, tokenizer, excerpt.tokens, length, excerpt.name)


ROWS.register("decoder")(DecoderRows())
