"""Rows of encoders of texts: sentences, some of their tokens masked where these are filled in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import InputError
from edgelr.data.calibration import from_texts
from edgelr.data.labels import label_ids, read_records
from edgelr.data.text import Texts, split_sentences
from edgelr.stages.transformers.rows import ROWS, Excerpt, ModalityRows
from edgelr.stages.transformers.text_selection import SELF, choose_texts, judged_line_by_line

if TYPE_CHECKING:
    from edgelr.core.settings import Settings
    from edgelr.data.calibration import Calibration
    from edgelr.data.labels import Record
    from edgelr.model.loaded import LoadedModel
    from edgelr.stages.transformers.subject import ModelSubject

SENTENCE_TOKENS = 256  # of the longest sentence


class TextEncoderRows(ModalityRows):
    """Sentences, each with its special tokens."""

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        """Read the texts, and the truth in the lines of an evaluation file, if they tell it."""
        if SELF in settings.calibration:
            raise InputError(
                f"--calibration self needs a model that generates text; {model.source} is for "
                f"{model.task}. Give a text file."
            )
        texts = choose_texts(settings.calibration, settings.evaluation, can_generate=False)
        path = Path(settings.evaluation) if settings.evaluation else None
        records = read_records(path, model.task)
        if path is None or records is None:
            return texts
        self.require_truths(model, records, path)
        return judged_line_by_line(texts, path)

    def require_truths(self, model: LoadedModel, records: Sequence[Record], path: Path) -> None:
        """Make sure that answers can be compared with true ones.

        Raises:
            InputError: the model has no such labels.
        """
        config: Any = model.module.config
        label_ids(records, config.to_dict(), str(path))

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        return sentences(subject, excerpt)


def sentences(subject: ModelSubject, excerpt: Excerpt) -> Calibration:
    """Cut a text into sentences, as an encoder reads them."""
    found = split_sentences(excerpt.text, excerpt.tokens)  # a sentence has more than one token
    length = excerpt.length or min(SENTENCE_TOKENS, subject.model.longest_text)
    tokenizer, mask_token = subject.tokenizer, subject.model.mask_token
    return from_texts(found, tokenizer, excerpt.tokens, length, excerpt.name, mask_token)


ROWS.register("text_encoder")(TextEncoderRows())
