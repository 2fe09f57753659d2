"""Reference values of decoders: logits of prompts, losses of chunks, greedy tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle, read_tokenizer
from edgelr.core.modality import DECODER
from edgelr.core.vocabulary import Array
from edgelr.data.padding import right_padded
from edgelr.data.text import PROMPTS, chunk_tokens, read_text
from edgelr.runtime.evaluators.perplexity import log_softmax
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.values import (
    GREEDY_TOKENS,
    ReferenceValues,
    columns_of,
    leads_of,
)
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.validate import max_abs_error, padding_error

CHUNKS, CHUNK_LENGTH = 4, 256  # of text whose losses are stored


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Run prompts, and chunks of a text; see ``ReferenceTest``."""
    first, second = (DecoderRunner.open(each) for each in (original, bundle))
    tokenizer = read_tokenizer(bundle)
    rows = [np.array(tokenizer.encode(prompt).ids) for prompt in PROMPTS]
    logits = [second.run_alone(row) for row in rows]
    columns = columns_of(logits[0].shape[-1])
    length = min(CHUNK_LENGTH, bundle.manifest.context_tokens)
    chunks = chunk_tokens(read_text(source), tokenizer, CHUNKS, length)
    original_losses, original_best = _losses(first, chunks)
    losses, _ = _losses(second, chunks)
    greedy = np.concatenate([second.continued([row], GREEDY_TOKENS) for row in rows])
    pairs = zip(rows, greedy, strict=True)
    scale = max(float(np.abs(each).max()) for each in logits)
    arrays = {
        "texts": np.array(PROMPTS),
        "ids": right_padded(rows)[0],
        "lengths": np.array([len(row) for row in rows]),
        "columns": columns,
        **{f"logits_{index}": each[:, columns] for index, each in enumerate(logits)},
        "greedy": greedy,
        "leads": np.stack([leads_of(second.predicted(*pair)) for pair in pairs]),
        "chunks": chunks,
        "losses": losses,
        "original_losses": original_losses,
        "original_best": original_best,
    }
    noise = max(padding_error(second, rows, logits), _step_error(second, rows, logits))
    ratio = float(np.exp((losses - original_losses).mean()))
    return ReferenceValues(arrays, scale, noise / scale, ratio)


def _losses(decoder: DecoderRunner, chunks: Array) -> tuple[Array, Array]:
    """Losses of the next tokens in nats, and the likeliest ones, both ``(chunks, length - 1)``."""
    losses, best = [], []
    for chunk in chunks:
        logits = decoder.run_alone(chunk)[:-1]
        losses.append(-log_softmax(logits)[np.arange(len(chunk) - 1), chunk[1:]])
        best.append(logits.argmax(-1))
    return np.array(losses, np.float32), np.array(best, np.int32)


def _step_error(decoder: DecoderRunner, rows: Sequence[Array], alone: Sequence[Array]) -> float:
    """Find the largest difference between prompts that are read by steps, and at once."""
    worst = 0.0
    for row, wanted in zip(rows, alone, strict=True):
        cache = decoder.empty_cache(1, len(row))
        for place, token in enumerate(row):
            logits, cache = decoder.logits(np.array([[token]]), past=cache)
            worst = max(worst, max_abs_error(logits[0, 0], wanted[place]))
    return worst


REFERENCE_TESTS.register(DECODER)(ReferenceTest(collect, SUITES / "decoder.py"))
