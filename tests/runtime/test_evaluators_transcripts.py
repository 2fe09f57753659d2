"""Transcripts: errors are counted word by word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgelr.core.results import Interval, Metric
from edgelr.runtime.evaluators import EVALUATORS, Known
from edgelr.runtime.evaluators.transcripts import compare_transcripts, plain_words, word_errors


class Listener:
    """Hears what it is told that it hears, sound by sound."""

    def __init__(self, heard: Sequence[str]) -> None:
        self.heard = heard

    def answers(self, sounds: Sequence[np.ndarray]) -> list[str]:
        return [self.heard[int(sound[0])] for sound in sounds]


def transcribed(said: Sequence[str]) -> Known:
    return Known([(np.array([place]), np.array([0])) for place in range(len(said))], said)


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def test_word_errors_are_counted_over_all_words() -> None:
    """One word is exchanged and one left out, one made up: 3 of 3 + 4 words, and 1 of them."""
    said = ("One, two three!", "four five six seven")
    before = Listener(("one two three", "four five six seven eight"))
    after = Listener(("one too", "Four five -- six seven eight."))
    found = by_name(compare_transcripts(before, after, transcribed(said)))
    rate, change = found["wer"], found["wer_change"]
    assert (rate.value, rate.baseline, rate.samples) == (3 / 7, 1 / 7, 7)
    assert change.value == pytest.approx(2 / 7)
    assert change.interval is not None
    assert rate.interval is not None
    assert rate.interval.high == pytest.approx(rate.baseline + change.interval.high)
    assert change.interval.low < 2 / 7 < change.interval.high


def test_equal_transcripts_change_nothing_for_sure() -> None:
    said = [f"this is number {place}" for place in range(9)]
    deaf = Listener(["that is number"] * 9)
    change = by_name(compare_transcripts(deaf, deaf, transcribed(said)))["wer_change"]
    assert (change.value, change.interval) == (0, Interval(0, 0, 9))


def test_nothing_is_counted_where_nobody_says_what_was_said() -> None:
    assert compare_transcripts(Listener(()), Listener(()), []) == ()
    plain = EVALUATORS.get("targets")
    assert not plain.reads_truths


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert plain_words("Don’t  STOP – it’s 5 €!") == "don t stop it s 5"
    assert plain_words("Ｆüße\n") == "füße"
    assert word_errors("a b c", "a c d") == 2
