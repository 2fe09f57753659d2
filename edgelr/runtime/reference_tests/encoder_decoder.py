"""What the tests of an encoder with its decoder compare with: answers of the original to texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.vocabulary import Array
from edgelr.data.padding import right_padded
from edgelr.data.text import read_text, split_sentences
from edgelr.runtime.eval_samples import draw_answers
from edgelr.runtime.evaluators.perplexity import log_softmax
from edgelr.runtime.reference_tests.values import GREEDY_TOKENS, WHOLE, Taken, columns_of, leads_of
from edgelr.runtime.runners.encoder_decoder import PairRunner
from edgelr.runtime.validate import max_abs_error

SOURCES = 16  # texts that are answered


def of_pairs(
    original: PairRunner, bundle: PairRunner, folder: ExportBundle, text: Path | None
) -> Taken:
    """Logits and losses of answers that are drawn from the original; greedy tokens."""
    sentences = split_sentences(read_text(text), SOURCES)
    pairs = draw_answers(original, folder, sentences)
    (ids, lengths), (targets, stops) = (
        (right_padded([row.tolist() for row in rows])[0], np.array(list(map(len, rows))))
        for rows in zip(*pairs, strict=True)
    )
    logits = [bundle.forced(source[None], target[None])[0] for source, target in pairs]
    others = [original.forced(source[None], target[None])[0] for source, target in pairs]
    second, first = (
        np.concatenate([_target_losses(*each) for each in zip(found, targets, strict=True)])
        for found in (logits, others)
    )
    sources, columns = [source for source, _ in pairs[:WHOLE]], columns_of(logits[0].shape[-1])
    greedy = np.array(bundle.greedy(sources, GREEDY_TOKENS))
    predicted = [bundle.predicted(*each) for each in zip(sources, greedy, strict=True)]
    scale = max(float(np.abs(each).max()) for each in logits)
    arrays = {
        "texts": np.array(sentences),
        "ids": ids,
        "lengths": lengths,
        "targets": targets,
        "target_lengths": stops,
        "columns": columns,
        **{f"logits_{index}": each[:, columns] for index, each in enumerate(logits[:WHOLE])},
        "losses": second,
        "original_losses": first,
        "start": np.array(bundle.start.tokens),
        "never": np.array(bundle.start.never, np.int64),
        "never_first": np.array(bundle.start.never_first, np.int64),
        "greedy": greedy,
        "leads": np.stack([_leads(bundle, each) for each in predicted]),
    }
    noise = _pair_noise(bundle, pairs[:WHOLE], logits)
    return Taken(arrays, scale, noise / scale, float(np.exp((second - first).mean())))


def _leads(runner: PairRunner, logits: Array) -> Array:
    """By how much every greedy token of an answer leads the next that may stand there."""
    first = runner.start.allowed(logits[:1].copy(), generated=0)
    return leads_of(np.concatenate([first, runner.start.allowed(logits[1:], generated=1)]))


def _target_losses(logits: Array, target: Array) -> Array:
    """Losses of all tokens of a padded target but the first, in nats."""
    places = np.arange(len(logits))
    losses: Array = -log_softmax(logits)[places, target[1 : len(logits) + 1]]
    return losses.astype(np.float32)


def _pair_noise(
    runner: PairRunner, pairs: Sequence[tuple[Array, Array]], alone: Sequence[Array]
) -> float:
    """Find how far answers to a padded batch, and token by token, are from those at once."""
    begun, length = len(runner.start.tokens), min(len(target) for _, target in pairs)
    sources = right_padded([source.tolist() for source, _ in pairs])
    targets = np.stack([target[:length] for _, target in pairs])
    together = runner.forced(sources[0], targets, sources[1])
    whole = (each[: length - 1] for each in alone)
    errors = [max_abs_error(*each) for each in zip(together, whole, strict=False)]
    for (source, target), wanted in zip(pairs, alone, strict=False):
        stepped = runner.predicted(source, target[begun:], True)
        errors.append(max_abs_error(stepped, wanted[begun - 1 :]))
    return max(errors)
