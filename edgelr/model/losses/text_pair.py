"""Pairs of texts: one score for a query and a passage, whose order is what counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgelr.core.errors import InputError
from edgelr.data.calibration import Calibration, from_texts, load_tokenizer
from edgelr.data.pairs import activation_of, read_pairs
from edgelr.model.dimensions import longest_text
from edgelr.model.losses import LOSSES, Inputs
from edgelr.model.losses.text_encoder import TextEncoderLoss, text_inputs

if TYPE_CHECKING:
    from torch import nn

    from edgelr.core.vocabulary import Array, Task
    from edgelr.data.pairs import Pair
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel

PAIRS, PAIR_TOKENS = 48, 64  # that tell how far scores lie apart: to a tenth


class TextPairLoss(TextEncoderLoss):
    """One score for every pair, divided by the standard deviation of scores."""

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read how far the scores of pairs lie apart."""
        activation_of(folder)
        config: Any = module.config
        texts = read_pairs(None, PAIRS)
        length = min(PAIR_TOKENS, longest_text(config, exporter))
        rows = tokenized(texts, folder, config, length)
        given = text_inputs(config, torch.tensor(rows.inputs), torch.tensor(rows.mask))
        with torch.no_grad():
            deviation = float(module(**given).logits.double().std())
        if not deviation > 0:
            raise InputError(
                f"The model in {folder} gives {len(texts)} pairs of texts one score; expected one "
                f"whose scores differ. Its head was not trained: give another model."
            )
        return {"score_deviation": deviation}

    def random_rows(
        self, model: LoadedModel, lengths: Sequence[int]
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Draw pairs: the second half of each is the second text."""
        drawn = [model.example_inputs(1, tokens)["input_ids"][0].numpy() for tokens in lengths]
        if not reads_types(model.module.config):
            return self.reference_rows(model, drawn, 0)
        pairs = [np.stack([ids, np.arange(len(ids)) >= len(ids) // 2]) for ids in drawn]
        return self.reference_rows(model, pairs, 0)


def tokenized(texts: Sequence[Pair], folder: Path, config: Any, length: int) -> Calibration:
    """Tokenize pairs, each cut to ``length`` tokens."""
    whole = len(texts) * length
    typed = reads_types(config)
    return from_texts(texts, load_tokenizer(folder), whole, length, "pairs", typed=typed)


def reads_types(config: Any) -> bool:
    """Tell whether a model is told which of two texts a token is of, as BERT is."""
    return getattr(config, "type_vocab_size", 0) > 1


LOSSES.register("text_pair")(TextPairLoss())
