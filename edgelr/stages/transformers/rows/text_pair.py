"""Rows of rerankers: pairs of texts, of files that hold some or made of a plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.errors import InputError
from edgelr.data.calibration import from_texts
from edgelr.data.pairs import FEWEST, MADE, Pair, as_lines, from_lines, pairs_in, pairs_of_text
from edgelr.data.text import PROMPTS, Texts
from edgelr.model.losses.text_pair import reads_types
from edgelr.stages.transformers.rows import ROWS, Excerpt
from edgelr.stages.transformers.rows.text_encoder import TextEncoderRows

if TYPE_CHECKING:
    from edgelr.core.settings import Settings
    from edgelr.core.vocabulary import Array
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel
    from edgelr.stages.transformers.subject import ModelSubject

PAIR_TOKENS = 512  # of the longest pair


class TextPairRows(TextEncoderRows):
    """Pairs of a query and a passage; the texts of a run are lines of them."""

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        texts = super().choose(model, settings)
        read = [pairs_in(Path(name)) for name in settings.calibration] or [None]
        calibration = tuple(
            (name, as_lines(pairs)) if pairs else (f"{name}, {MADE}", _made(text))
            for (name, text), pairs in zip(texts.calibration, read, strict=True)
        )
        judged = pairs_in(Path(settings.evaluation)) if settings.evaluation else None
        if judged is None:
            ours, others = (_made(text) for text in (texts.evaluation, texts.selection))
            part = f"{texts.evaluation_part}, {MADE}"
        else:
            ours, others = as_lines(judged[::2]), as_lines(judged[1::2])
            part = "every second line"
        for lines in (ours, others, *(lines for _, lines in calibration)):
            require_enough(lines, texts.evaluation_name)
        changed = {"evaluation": ours, "selection": others, "records": ours}
        return replace(texts, **changed, calibration=calibration, evaluation_part=part)

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        config, longest = subject.model.module.config, subject.model.longest_text
        length, tokens = excerpt.length or min(PAIR_TOKENS, longest), excerpt.tokens
        pairs, typed = from_lines(excerpt.text), reads_types(config)
        return from_texts(pairs, subject.tokenizer, tokens, length, excerpt.name, typed=typed)

    def parity_inputs(
        self, subject: ModelSubject, calibration: Sequence[Calibration]
    ) -> list[Array]:
        """Give ids of a few pairs, and which text each token is of, where the model reads that."""
        pairs: list[Pair] = list(zip(PROMPTS, PROMPTS[1:] + PROMPTS[:1], strict=True))
        tokenizer = subject.tokenizer
        tokenizer.enable_truncation(subject.model.longest_text)
        found = tokenizer.encode_batch(pairs)
        if not reads_types(subject.model.module.config):
            return [np.array(each.ids) for each in found]
        return [np.array([each.ids, each.type_ids]) for each in found]


def _made(text: str | None) -> str:
    assert text is not None, "a reranker writes no text"
    return as_lines(pairs_of_text(text))


def require_enough(lines: str, name: str) -> None:
    """Refuse a part of a run that has no order to speak of.

    Raises:
        InputError: it holds fewer than ``FEWEST`` pairs.
    """
    count = len(lines.splitlines())
    if count < FEWEST:
        raise InputError(
            f"{name}: only {count} pairs of texts are left for a part of the run; expected at "
            f"least {FEWEST} to calibrate, to plan and to judge on each. Give more."
        )


ROWS.register("text_pair")(TextPairRows())
