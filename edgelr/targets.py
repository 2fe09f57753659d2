"""What a sequence-to-sequence model in torch answers to its sources: drawn, or most likely.

Calibration draws: a model keeps to what it says most, and would see little of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgelr.generation import Start, read_start

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.calibration import Calibration
    from edgelr.types import LoadedModel

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
) -> list[list[int]]:
    """Draw an answer to every source, up to and with the end of the text.

    Args:
        model: with an encoder and a decoder.
        sources: texts.
        new_tokens: at most.
        seed: of the tokens.
        progress: called with the sources that are answered, and all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for inputs, mask in sources.batches(BATCH):
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
        model: with an encoder and a decoder.
        source: what the encoder reads, ``(rows, length)``.
        mask: ``(rows, length)``, 1 for real tokens.
        new_tokens: after those that every target begins with, at most.
        generator: of tokens that are drawn, up to and with the end of the text; None takes the
            likeliest, as many as there may be.
    """
    module: Any = model.module
    start = start_of(model)
    encoded = module.get_encoder()(input_ids=source, attention_mask=mask)
    step = torch.tensor(start.tokens).expand(len(source), -1)
    rows = step.tolist()
    past = None
    for _ in range(new_tokens):
        output = module(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=step,
            past_key_values=past,
            use_cache=True,
        )
        past = output.past_key_values
        step = _next(output.logits[:, -1], start, generator)
        for row, token in zip(rows, step[:, 0].tolist(), strict=True):
            row.append(token)
        if generator and all(_ended(row, start) for row in rows):
            break
    first = len(start.tokens)
    return [row[:first] + start.until_end(row[first:]) for row in rows] if generator else rows


def _next(logits: Tensor, start: Start, generator: torch.Generator | None) -> Tensor:
    """Choose a token for each row of ``(rows, vocabulary)``; ``(rows, 1)``."""
    logits[:, list(start.never)] = -torch.inf
    if generator is None:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)


def _ended(row: list[int], start: Start) -> bool:
    return any(token in start.ends for token in row[len(start.tokens) :])
