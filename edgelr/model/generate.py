"""Answers of an encoder-decoder in torch to its sources: drawn, or greedy.

Calibration draws: a model keeps to what it says most, and would see little of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgelr.data.generation import Start, read_start
from edgelr.model.losses import loss_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel

BATCH = 16  # sources that are answered together


def start_of(model: LoadedModel) -> Start:
    """Read how the targets of a model begin and end."""
    module: Any = model.module
    return read_start(module.config.to_dict(), module.generation_config.to_dict())


def draw(
    model: LoadedModel,
    sources: Calibration,
    new_tokens: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    batch: int | None = None,
) -> list[list[int]]:
    """Draw an answer to every source, up to and with the end of the text.

    Args:
        model: encoder-decoder.
        sources: texts, or sounds.
        new_tokens: maximum answer length, tokens.
        seed: random seed of the tokens.
        progress: function that is called with the sources that are answered, and all of them.
        batch: sources that are answered together; None takes ``BATCH``.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for inputs, mask in sources.batches(batch or BATCH):
        rows += answer(model, torch.tensor(inputs), torch.tensor(mask), new_tokens, generator)
        if progress:
            progress(len(rows), len(sources.mask))
    return rows


@torch.no_grad()
def answer(
    model: LoadedModel,
    source: Tensor,
    mask: Tensor,
    new_tokens: int,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Answer a batch of sources, row by row, from the start token on.

    Args:
        model: encoder-decoder.
        source: inputs of the encoder, ``(rows, length)`` or ``(rows, mel_bins, frames)``.
        mask: 1 for real tokens, ``(rows, length)``; sounds have no others.
        new_tokens: maximum length after the tokens that every target begins with.
        generator: random generator of tokens that are drawn, up to and with the end of the text;
            None takes the likeliest tokens, ``new_tokens`` of them.
    """
    module: Any = model.module
    start = start_of(model)
    encoded = module.get_encoder()(**loss_of(model).source_inputs(source, mask))

    def run(ids: Tensor, past: Any = None) -> Any:
        return module(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=past,
            use_cache=True,
        )

    begun = start.begin(len(source), lambda ids: run(torch.tensor(ids)).logits[:, -1].numpy())
    step, past = torch.tensor(begun), None
    rows = begun.tolist()
    for place in range(new_tokens):
        output = run(step, past)
        past = output.past_key_values
        step = _next(output.logits[:, -1], start.ruled_out(place), generator)
        for row, token in zip(rows, step[:, 0].tolist(), strict=True):
            row.append(token)
        if generator and all(_ended(row, start) for row in rows):
            break
    first = start.length
    return [row[:first] + start.until_end(row[first:]) for row in rows] if generator else rows


def _next(logits: Tensor, ruled_out: list[int], generator: torch.Generator | None) -> Tensor:
    """Choose a token for each row of ``(rows, vocabulary)``; ``(rows, 1)``."""
    logits[:, ruled_out] = -torch.inf
    if generator is None:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)


def _ended(row: list[int], start: Start) -> bool:
    return any(token in start.ends for token in row[start.length :])
