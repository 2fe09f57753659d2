"""Pairs of texts: one score for each, from token ids that may tell the two apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.vocabulary import Array
from edgelr.data.padding import right_padded
from edgelr.data.pairs import Pair, read_pairs
from edgelr.runtime.graphs import random_ids
from edgelr.runtime.requests import Evaluation, TimedInputs, TimedPhase
from edgelr.runtime.runners import RUNNERS
from edgelr.runtime.runners.text_encoder import TextEncoderRunner

if TYPE_CHECKING:
    pass

_BATCH = 32


@RUNNERS.register("text_pair")
class TextPairRunner(TextEncoderRunner):
    """A graph from the tokens of a query and a passage to one score.

    The arguments are those of ``TextEncoderRunner``.
    """

    def samples(self, evaluation: Evaluation) -> list[Pair]:  # type: ignore[override]
        """Read pairs of texts, or make them of a plain text."""
        return read_pairs(evaluation.source, evaluation.size.sentences)

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw tokens; the second half is the second text."""
        ids = random_ids(self.vocabulary, phase.batch, phase.tokens)
        types = np.broadcast_to(np.arange(phase.tokens) >= phase.tokens // 2, ids.shape)
        rows = np.stack([ids, types], axis=1)
        return lambda: self.run(rows)

    def rows(self, pairs: Sequence[Pair]) -> list[Array]:
        """Tokenize pairs: token ids, and which text each is of, ``(2, length)``."""
        return [np.array([each.ids, each.type_ids]) for each in self.encode(pairs)]

    def score(self, pairs: Sequence[Pair], batch: int = _BATCH) -> Array:
        """Compute one score for each pair, as the graph gives it: ``(pairs,)`` float32."""
        rows = self.rows(pairs)
        parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        return np.concatenate([self.run(*right_padded(part))[:, 0] for part in parts])
