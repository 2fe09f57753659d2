"""Transcripts against what was said: the word error rate of both models.

Errors are words that are exchanged, left out or made up, in the shortest way from what was said to
what was heard, over the words that were said; jiwer counts them. Case, punctuation and symbols are
no words, as in the evaluation of Whisper (Radford et al., 2022, arXiv:2212.04356, appendix C).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from edgelr.core.intervals import mean_interval
from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, AnsweringRunner, Evaluator, Known


def compare_transcripts(
    reference: AnsweringRunner,
    candidate: AnsweringRunner,
    samples: Known | Sequence[tuple[Array, Array]],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Count the errors in the greedy transcripts of both models.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: sounds, each with a target that is not looked at, and what is said in each; nothing
            is counted where that is not known.
        progress: callback after each model.

    Returns:
        ``wer`` of all sounds together, and ``wer_change``; intervals are of paired
        resampling, sound by sound.
    """
    if not isinstance(samples, Known):
        return ()
    sounds, said = [sound for sound, _ in samples.samples], [*map(plain_words, samples.truths)]
    errors: list[Array] = []
    for done, runner in enumerate((reference, candidate), start=1):
        heard = [plain_words(text) for text in runner.answers(sounds)]
        errors.append(np.array([*map(word_errors, said, heard)]))
        if progress:
            progress("transcribe", done, 2)
    before, after = errors
    words = np.array([len(text.split()) for text in said])
    baseline = float(before.sum() / words.sum())
    moved = mean_interval((after - before) / words, words)
    around = moved and Interval(max(0.0, baseline + moved.low), baseline + moved.high, moved.units)
    value = float(after.sum() / words.sum())
    return (
        Metric("wer", value, baseline, int(words.sum()), "", around),
        Metric("wer_change", value - baseline, None, int(words.sum()), "", moved),
    )


def word_errors(said: str, heard: str) -> int:
    """Count the words that are exchanged, left out or made up."""
    import jiwer  # an extra, which only this needs

    found = jiwer.process_words(said, heard)
    return int(found.substitutions + found.deletions + found.insertions)


def plain_words(text: str) -> str:
    """Leave case, punctuation and symbols out; one space is between words."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(" " if unicodedata.category(each)[0] in "PS" else each
                            for each in plain).split())  # fmt: skip


EVALUATORS.register("transcripts")(
    Evaluator(
        ("automatic-speech-recognition",), compare_transcripts, judges=False, reads_truths=True
    )
)
