"""Answers against true ones: BLEU and chrF of what both models answer most likely.

BLEU (Papineni et al., 2002) and chrF (Popović, 2015) are those of sacrebleu (Post, 2018,
arXiv:1804.08771), of all sentences together. Intervals are of paired resampling (Koehn, 2004):
sentences are drawn with what both models answer to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.core.intervals import figure_interval
from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, AnsweringRunner, Evaluator, Known


def compare_answers(
    reference: AnsweringRunner,
    candidate: AnsweringRunner,
    samples: Known | Sequence[tuple[Array, Array]],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Score the greedy answers of both models.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: sources, each with a target that is not looked at, and the true answers; nothing
            is scored where these are not known.
        progress: callback after each model.

    Returns:
        ``bleu`` and ``chrf`` of all answers, 0 to 100, and the ``change`` of both.
    """
    if not isinstance(samples, Known):
        return ()
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    sources = [source for source, _ in samples.samples]
    answers = []
    for done, runner in enumerate((reference, candidate), start=1):
        answers.append(runner.answers(sources))
        if progress:
            progress("answer", done, 2)
    scores = (("bleu", BLEU()), ("chrf", CHRF()))
    return tuple(
        metric for name, score in scores for metric in _scored(name, score, answers, samples.truths)
    )


def _scored(
    name: str, score: Any, answers: Sequence[Sequence[str]], truths: Sequence[str]
) -> list[Metric]:
    """Score both sides; ``score`` sums what it counts in every sentence, as its own tests do."""
    before, after = (
        np.array(score._extract_corpus_statistics(given, [list(truths)])) for given in answers
    )  # (sentences, counts)

    def total(counts: Array, places: Array) -> float:
        return float(score._compute_score_from_stats(counts[places].sum(0).tolist()).score)

    def change(places: Array) -> float:
        return total(after, places) - total(before, places)

    every = np.arange(len(truths))
    baseline, moved = total(before, every), figure_interval(change, len(truths))
    around = moved and Interval(baseline + moved.low, baseline + moved.high, moved.units)
    return [
        Metric(name, total(after, every), baseline, len(truths), "", around),
        Metric(f"{name}_change", change(every), None, len(truths), "", moved),
    ]


EVALUATORS.register("answers")(
    Evaluator(("text2text-generation",), compare_answers, judges=False, reads_truths=True)
)
