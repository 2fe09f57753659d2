"""Reference values of encoder-decoders: logits and losses of drawn answers, greedy tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.vocabulary import Array
from edgelr.data.padding import right_padded
from edgelr.data.text import read_text, split_sentences
from edgelr.runtime.evaluators.perplexity import log_softmax
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.values import (
    GREEDY_TOKENS,
    WHOLE,
    ReferenceValues,
    columns_of,
    leads_of,
)
from edgelr.runtime.runners.encoder_decoder import EncoderDecoderRunner, Targets
from edgelr.runtime.validate import max_abs_error, padding_error

SOURCES = 16  # texts that are answered


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Draw answers to texts from the original, and let both predict them; see ``ReferenceTest``."""
    first, second = (EncoderDecoderRunner.open(each) for each in (original, bundle))
    sentences = split_sentences(read_text(source), SOURCES)
    rows = first.draw_answers(bundle, sentences)
    (ids, lengths), (targets, stops) = (
        (right_padded(each)[0], np.array(list(map(len, each)))) for each in zip(*rows, strict=True)
    )
    logits = [second.run_alone(row) for row in rows]
    losses, original_losses = (
        np.concatenate([_target_losses(*each) for each in zip(found, targets, strict=True)])
        for found in (logits, [first.run_alone(row) for row in rows])
    )
    sources, columns = [each for each, _ in rows[:WHOLE]], columns_of(logits[0].shape[-1])
    greedy = np.array(second.greedy(sources, GREEDY_TOKENS))
    predicted = [second.predicted(*each) for each in zip(sources, greedy, strict=True)]
    scale = max(float(np.abs(each).max()) for each in logits)
    arrays = {
        "texts": np.array(sentences),
        "ids": ids,
        "lengths": lengths,
        "targets": targets,
        "target_lengths": stops,
        "columns": columns,
        **{f"logits_{index}": each[:, columns] for index, each in enumerate(logits[:WHOLE])},
        "losses": losses,
        "original_losses": original_losses,
        "start": np.array(second.start.tokens),
        "never": np.array(second.start.never, np.int64),
        "never_first": np.array(second.start.never_first, np.int64),
        "greedy": greedy,
        "leads": np.stack([_leads(second, each) for each in predicted]),
    }
    noise = _noise(second, rows[:WHOLE], logits[:WHOLE]) / scale
    return ReferenceValues(arrays, scale, noise, float(np.exp((losses - original_losses).mean())))


def _leads(runner: EncoderDecoderRunner, logits: Array) -> Array:
    """Find by how much every greedy token of an answer leads the next that may stand there."""
    first = runner.start.allowed(logits[:1].copy(), generated=0)
    return leads_of(np.concatenate([first, runner.start.allowed(logits[1:], generated=1)]))


def _target_losses(logits: Array, target: Array) -> Array:
    """Compute the losses of all tokens of a padded target but the first, in nats."""
    places = np.arange(len(logits))
    losses: Array = -log_softmax(logits)[places, target[1 : len(logits) + 1]]
    return losses.astype(np.float32)


def _noise(runner: EncoderDecoderRunner, rows: Targets, alone: list[Array]) -> float:
    """Find how far answers to a padded batch, and token by token, are from those at once."""
    begun, length = len(runner.start.tokens), min(len(target) for _, target in rows)
    cut = [(source, target[:length]) for source, target in rows]
    worst = padding_error(runner, cut, [each[: length - 1] for each in alone])
    for (source, target), wanted in zip(rows, alone, strict=True):
        stepped = runner.predicted(source, target[begun:], True)
        worst = max(worst, max_abs_error(stepped, wanted[begun - 1 :]))
    return worst


REFERENCE_TESTS.register("encoder_decoder")(ReferenceTest(collect, SUITES / "encoder_decoder.py"))
