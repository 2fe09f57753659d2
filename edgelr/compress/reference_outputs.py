"""Answers of the compressed model in torch, for its graph to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgelr.compress.compressed_model import installed, multiplied
from edgelr.compress.factors import FactorSet
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Array
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import Inputs, answers, loss_of

KEPT_POSITIONS = 128  # of each random row whose outputs are compared: its last ones


@torch.no_grad()
def write_dense_answers(model: LoadedModel, lengths: Sequence[int], path: Path) -> None:
    """Write the answers of the original model to random inputs, one of each length.

    Of a model that embeds, also the vectors that it makes of them.

    Args:
        model: dense model.
        lengths: lengths of the inputs, tokens; there are as many inputs where they have one size.
        path: path of the ``.npz``; see ``runtime.validate.dense_parity``.
    """
    loss = loss_of(model)
    torch.manual_seed(0)
    arrays, rows = loss.random_rows(model, lengths)
    outputs = {
        f"{loss.reference_name}_{index}": _output(model, row)[-KEPT_POSITIONS:]
        for index, row in enumerate(rows)
    }
    vectors = {}
    if TASKS.get(model.task).loss == "embedding":
        vectors = {f"vector_{index}": _vector(model, row) for index, row in enumerate(rows)}
    np.savez(path, allow_pickle=False, **arrays, **outputs, **vectors)


@torch.no_grad()
def write_answers(
    model: LoadedModel,
    factors: FactorSet,
    prompts: Sequence[Array],
    new_tokens: int,
    path: Path,
) -> None:
    """Write the answers of the compressed model to ``prompts``.

    Decoders: logits of every prompt position, and ``new_tokens`` greedy tokens. Others: outputs of
    their graphs. With them, the float32 rounding noise of these answers: the largest difference to
    the same model with its factors multiplied out, which rounds in other places.

    Args:
        model: dense model.
        factors: factors of the compressed sites, as they are exported.
        prompts: token ids ``(length,)``, pixels ``(3, side, side)``, or a sound
            ``(mel_bins, frames)``; ids and pixels of a model that compares them.
        new_tokens: length of the greedy continuations, tokens.
        path: path of the ``.npz``; see ``runtime.validate.parity``.
    """
    loss = loss_of(model)
    with installed(model.module, factors):
        arrays, rows = loss.reference_rows(model, prompts, new_tokens)
        outputs = [_output(model, row) for row in rows]
    with multiplied(model.module, factors):
        again = [_output(model, row) for row in rows]
    named = {f"{loss.reference_name}_{index}": output for index, output in enumerate(outputs)}
    rounding = max(np.abs(a - b).max() for a, b in zip(outputs, again, strict=True))
    np.savez(path, allow_pickle=False, **arrays, **named, rounding=np.array(rounding))


def _vector(model: LoadedModel, row: Inputs) -> Array:
    """Embed a batch of one without padding, without its first axis."""
    tokens = row.shape[-1] if model.image is None else model.image.tokens
    found: Array = answers(model, row, torch.ones(1, tokens, dtype=torch.long))[0].numpy()
    return found


def _output(model: LoadedModel, row: Inputs) -> Array:
    """Answer a batch of one, without its first axis."""
    found: Array = loss_of(model).reference_answer(model, row)[0].numpy()
    return found
