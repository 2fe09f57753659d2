"""Text sampled from the model itself: calibration tokens where no text is at hand.

Each text starts with a token that is drawn from the whole vocabulary, and goes on as the model
likes (LLM-QAT, Liu et al., 2023, arXiv:2305.17888): started in one way only, a model keeps to what
it says most, and the calibration sees little of the rest. Wide and short: the rows of a batch step
together, so that each weight is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.requests import ON_CPU, Execution, TextRequest
from edgelr.runtime.runners.decoder import DecoderRunner

_BLOCK = 256  # a row's sum goes block by block, and only one block is searched inside


def sample_tokens(
    bundle: ExportBundle,
    request: TextRequest,
    execution: Execution = ON_CPU,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Sample rows of text; equal requests give equal rows on the same machine.

    Args:
        bundle: decoder.
        request: amount, form and seed of the text.
        execution: provider and threads.
        progress: callback after each step, with the tokens so far.

    Returns:
        Token ids, ``(ceil(tokens / length), length)`` int64.

    Raises:
        InputError: the bundle is no decoder, or a number cannot be used.
    """
    _check(request)
    sampler = _Sampler(DecoderRunner.open(bundle, execution), request)
    length, batch = request.length, request.batch
    rows = np.empty((-(-request.tokens // length), length), np.int64)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        for step in sampler.fill(part):
            if progress:
                progress("sample", start * length + step * len(part), rows.size)
    return rows


class _Sampler:
    """A decoder, and the random generator of the whole run."""

    def __init__(self, decoder: DecoderRunner, request: TextRequest) -> None:
        self.decoder = decoder
        self.prefix = np.array(request.prefix, np.int64)
        self.temperature = np.float32(request.temperature)
        self.generator = np.random.default_rng(request.seed)

    def fill(self, rows: Array) -> Iterator[int]:
        """Write tokens into ``rows (batch, length)``; yield how many columns are written."""
        cache, start = self.decoder.empty_cache(*rows.shape), len(self.prefix)
        rows[:, :start] = self.prefix
        rows[:, start] = self._any(len(rows))
        unread = rows[:, : start + 1]
        for column in range(start + 1, rows.shape[1]):
            logits, cache = self.decoder.logits(unread, past=cache)
            tokens = draw(logits[:, -1] / self.temperature, self.generator.random(len(rows)))
            ended = np.isin(rows[:, column - 1], self.decoder.ends)
            tokens[ended] = self._any(len(rows))[ended]
            rows[:, column] = tokens
            unread = tokens[:, None]
            yield column + 1

    def _any(self, count: int) -> Array:
        return self.generator.integers(self.decoder.vocabulary, size=count)


def draw(logits: Array, uniforms: Array) -> Array:
    """Draw one token per row, by inverting the cumulative distribution.

    Args:
        logits: logits of the next token, ``(rows, vocabulary)``.
        uniforms: uniform random numbers in [0, 1), ``(rows,)``.

    Returns:
        Token ids, ``(rows,)`` int64.
    """
    starts = np.arange(0, logits.shape[1], _BLOCK)
    tokens = [
        _draw_row(row, uniform, starts) for row, uniform in zip(logits, uniforms, strict=True)
    ]
    return np.array(tokens, np.int64)


def _draw_row(logits: Array, uniform: float, starts: Array) -> int:
    weights = np.exp(logits - logits.max())
    blocks = np.cumsum(np.add.reduceat(weights, starts), dtype=np.float64)
    target = uniform * blocks[-1]
    block = int(np.searchsorted(blocks, target, side="right"))
    before = blocks[block - 1] if block else 0.0
    start = int(starts[block])
    inside = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    offset = int(np.searchsorted(inside, target - before, side="right"))
    return start + min(offset, len(inside) - 1)  # the two sums may differ in the last bit


def _check(request: TextRequest) -> None:
    smallest = min(request.tokens, request.length - len(request.prefix), request.batch)
    if smallest < 1 or request.temperature <= 0:
        raise InputError(
            f"Cannot sample with a count, length or batch of {smallest} at temperature "
            f"{request.temperature}. Expected positive numbers. Correct them."
        )
