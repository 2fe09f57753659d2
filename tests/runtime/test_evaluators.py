from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgelr.core.errors import InputError
from edgelr.core.results import Interval, Metric
from edgelr.core.tasks import TASKS
from edgelr.runtime.evaluators import EVALUATORS, Known, evaluators_for
from edgelr.runtime.evaluators.choices import compare_choices
from edgelr.runtime.evaluators.embedding import compare_embeddings, overlap, spearman
from edgelr.runtime.evaluators.generation import (
    NEW_TOKENS,
    PROMPTS,
    compare_generations,
    prompts_of,
)
from edgelr.runtime.evaluators.perplexity import compare_language_models
from edgelr.runtime.evaluators.transcripts import compare_transcripts, plain_words, word_errors

VOCABULARY, LENGTH, CHUNKS = 13, 70, 3  # 70 positions: more than one block of rows, no multiple
CHUNK_IDS = np.random.default_rng(1).integers(VOCABULARY, size=(CHUNKS, LENGTH))


class TableModel:
    """Predicts the next token from the current one alone."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def logits(self, input_ids: np.ndarray) -> tuple[np.ndarray, Any]:
        return self.table[input_ids], None


class WritingModel:
    """Predicts a token from those before it by a table; ``step_shift`` is added by steps alone."""

    def __init__(
        self, table: np.ndarray, ends: tuple[int, ...] = (), step_shift: float = 0.0
    ) -> None:
        self.table, self.ends, self.step_shift = table.astype(np.float32), ends, step_shift

    def continued(self, prompts: Sequence[np.ndarray], new_tokens: int) -> np.ndarray:
        rows = np.stack(prompts)
        for _ in range(new_tokens):
            rows = np.append(rows, self.table[rows[:, -1:]].argmax(-1), axis=1)
        return rows[:, -new_tokens:]

    def predicted(
        self, prompt: np.ndarray, tokens: np.ndarray, by_steps: bool = False
    ) -> np.ndarray:
        return self.table[[prompt[-1], *tokens[:-1]]] + self.step_shift * by_steps


class VectorModel:
    """Gives each text the row that its length names."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors[[len(text) for text in texts]]


class MatchingModel(VectorModel):
    """Compares images, which are texts here too, with texts."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)

    def logits(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        return 9 * images @ texts.T


def random_model(seed: int) -> TableModel:
    return TableModel(np.random.default_rng(seed).standard_normal((VOCABULARY, VOCABULARY)))


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def probabilities(model: TableModel) -> np.ndarray:
    exponentials = np.exp(model.table.astype(np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_a_language_model_agrees_with_itself() -> None:
    model = random_model(0)
    found = by_name(compare_language_models(model, model, CHUNK_IDS))
    assert found["kl_divergence"].value == 0
    assert found["top1_agreement"].value == 1
    assert found["perplexity"].value == found["perplexity"].baseline
    assert found["perplexity"].samples == CHUNKS * (LENGTH - 1)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large() -> None:
    uniform = TableModel(np.full((VOCABULARY, VOCABULARY), 7.0))
    found = by_name(compare_language_models(random_model(0), uniform, CHUNK_IDS))
    assert found["perplexity"].value == pytest.approx(VOCABULARY, rel=1e-9)


def test_language_metrics_equal_their_definitions() -> None:
    reference, candidate = random_model(0), random_model(1)
    p, q = probabilities(reference), probabilities(candidate)
    now, following = CHUNK_IDS[:, :-1].ravel(), CHUNK_IDS[:, 1:].ravel()
    found = by_name(compare_language_models(reference, candidate, CHUNK_IDS))
    perplexity = found["perplexity"]
    assert perplexity.value == pytest.approx(np.exp(-np.log(q[now, following]).mean()), rel=1e-6)
    assert perplexity.baseline == pytest.approx(np.exp(-np.log(p[now, following]).mean()), rel=1e-6)
    divergence = (p * np.log(p / q)).sum(-1)[now].mean()
    assert found["kl_divergence"].value == pytest.approx(divergence, rel=1e-6)
    agreement = (p.argmax(-1) == q.argmax(-1))[now].mean()
    assert found["top1_agreement"].value == pytest.approx(agreement)


def test_a_ruined_model_is_infinitely_perplexed() -> None:
    ruined = TableModel(1e4 * np.eye(VOCABULARY))
    found = by_name(compare_language_models(random_model(0), ruined, CHUNK_IDS))
    assert found["perplexity"].value == float("inf")
    assert found["kl_divergence"].value > 1e3


def successor(changes: dict[int, int] | None = None) -> np.ndarray:
    """Tables that count on, modulo the vocabulary, but for ``changes``."""
    following = {token: (token + 1) % VOCABULARY for token in range(VOCABULARY)} | (changes or {})
    return 4.0 * np.eye(VOCABULARY)[[following[token] for token in range(VOCABULARY)]]


def test_prompts_are_spread_over_the_chunks() -> None:
    prompts, new_tokens = prompts_of(CHUNK_IDS)
    assert (len(prompts), {len(prompt) for prompt in prompts}) == (13, {16})  # 210 tokens
    assert new_tokens == NEW_TOKENS
    assert prompts[0].tolist() == CHUNK_IDS[0, :16].tolist()
    assert prompts[-1].tolist() == CHUNK_IDS[-1, -16:].tolist()
    short, few = prompts_of(CHUNK_IDS[:, :9])
    assert (len(short), len(short[0]), few) == (5, 5, 4)
    sources = [(row, row[:1]) for row in np.tile(CHUNK_IDS, (9, 1))]
    assert len(prompts_of(sources)[0]) == PROMPTS


def test_a_model_writes_what_it_writes() -> None:
    model = WritingModel(random_model(0).table)
    found = by_name(compare_generations(model, model, CHUNK_IDS))
    for name in ("same_texts", "free_agreement", "forced_agreement"):
        assert found[name].value == 1
    assert found["same_tokens"].value == NEW_TOKENS
    assert found["forced_kl"].value == found["step_error"].value == 0
    assert found["forced_kl"].samples == 13 * NEW_TOKENS


def test_one_other_token_is_found_where_it_is_written() -> None:
    """Both count on; the candidate jumps from 5 to 0: fed the right tokens it errs there alone."""
    chunks = np.array([[2] * 70, [10] * 70])
    reference, candidate = WritingModel(successor()), WritingModel(successor({5: 0}))
    found = by_name(compare_generations(reference, candidate, chunks))
    # behind 2: 3, 4, 5 and then 6 against 0; behind 10: 11, 12, 0 ... 5, and then 6 against 0
    before = {2: 3, 10: 8}
    count = found["same_tokens"].samples
    starts = [int(prompt[-1]) for prompt in prompts_of(chunks)[0]]
    assert (found["same_tokens"].value, count) == (np.median([before[s] for s in starts]), 8)
    assert found["same_tokens"].interval is not None
    assert (found["same_tokens"].interval.low, found["same_tokens"].interval.high) == (3, 8)
    assert found["same_texts"].value == 0
    errors = [sum((start + place) % VOCABULARY == 5 for place in range(32)) for start in starts]
    assert found["forced_agreement"].value == pytest.approx(1 - sum(errors) / (32 * 8))
    assert found["free_agreement"].value < found["forced_agreement"].value
    log_p = reference.table[5] - np.log(np.exp(reference.table[5]).sum())
    log_q = candidate.table[5] - np.log(np.exp(candidate.table[5]).sum())
    apart = float((np.exp(log_p) * (log_p - log_q)).sum())
    expected = apart * sum(errors) / (32 * 8)
    assert found["forced_kl"].value == pytest.approx(expected, rel=1e-6)
    places = [found[f"forced_kl at {place}"] for place in ("1 to 4", "5 to 16", "17 to 32")]
    assert [each.samples for each in places] == [4 * 8, 12 * 8, 16 * 8]
    assert sum(each.value * each.samples for each in places) == pytest.approx(expected * 32 * 8)


def test_what_follows_an_end_is_not_compared() -> None:
    chunks = np.full((2, 70), 2)
    reference = WritingModel(successor(), ends=(5,))
    found = by_name(compare_generations(reference, WritingModel(successor({5: 0})), chunks))
    assert (found["same_tokens"].value, found["same_texts"].value) == (3, 1)
    assert found["free_agreement"].samples == 3 * 8


def test_a_cache_that_answers_otherwise_is_seen() -> None:
    table = successor()
    found = by_name(
        compare_generations(WritingModel(table), WritingModel(table, step_shift=0.5), CHUNK_IDS)
    )
    assert found["step_error"].value == pytest.approx(0.5 / 4)
    assert (found["step_error"].baseline, found["same_texts"].value) == (0, 1)


def test_an_encoder_agrees_with_itself() -> None:
    model = VectorModel(np.random.default_rng(0).standard_normal((50, 5)))
    texts = ["x" * length for length in range(50)]  # more than one batch
    found = by_name(compare_embeddings(model, model, texts))
    assert found["mean_cosine"].value == pytest.approx(1, abs=1e-15)
    assert found["min_cosine"].value == pytest.approx(1, abs=1e-15)
    assert found["spearman"].value == pytest.approx(1)
    assert found["spearman"].samples == 50


def test_a_rotation_changes_cosines_but_no_similarity() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 5))
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    texts = ["x" * length for length in range(20)]
    turned = VectorModel(vectors @ rotation)
    found = by_name(compare_embeddings(VectorModel(vectors), turned, texts))
    assert found["min_cosine"].value < found["mean_cosine"].value < 0.9
    assert found["spearman"].value > 0.999


def test_the_nearest_of_a_sample_are_counted() -> None:
    """On a line, the two nearest of every point; moving the last point changes those near it."""
    points = np.array([0.0, 1.0, 2.1, 3.3, 4.6])
    turned = points.copy()
    turned[-1] = -2.0
    first, second = (
        np.stack([np.cos(each / 10), np.sin(each / 10)], axis=-1) for each in (points, turned)
    )
    assert overlap(first, first, 2).tolist() == [1.0] * 5
    # of 0: 1, 2.1 and then 1, -2; of 3.3: 2.1, 4.6 and then 2.1, 1; of 4.6: 3.3, 2.1, then 0, 1
    assert overlap(first, second, 2).tolist() == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_retrieval_is_judged_where_there_is_something_to_retrieve() -> None:
    model = VectorModel(np.random.default_rng(0).standard_normal((60, 5)))
    texts = ["x" * length for length in range(60)]
    found = by_name(compare_embeddings(model, model, texts))["overlap_at_10"]
    assert (found.value, found.samples) == (1, 60)
    assert "overlap_at_10" not in by_name(compare_embeddings(model, model, texts[:20]))


def test_spearman_of_ties_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    first, second = generator.integers(5, size=40), generator.integers(5, size=40)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert spearman(first, -first) == pytest.approx(-1)


class Listener:
    """Hears what it is told that it hears, sound by sound."""

    def __init__(self, heard: Sequence[str]) -> None:
        self.heard = heard

    def answers(self, sounds: Sequence[np.ndarray]) -> list[str]:
        return [self.heard[int(sound[0])] for sound in sounds]


def transcribed(said: Sequence[str]) -> Known:
    return Known([(np.array([place]), np.array([0])) for place in range(len(said))], said)


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


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    model = random_model(0)
    compare_language_models(model, model, CHUNK_IDS, lambda *call: calls.append(call))
    assert calls == [("evaluate", done, CHUNKS) for done in (1, 2, 3)]


def test_a_turn_of_both_embeddings_changes_no_choice() -> None:
    """But turning one of the two does."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((60, 5))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    images, prompts = (
        ["a" * length for length in range(10, 60)],
        ["a" * length for length in range(7)],
    )
    halfway = np.concatenate((vectors[:7], vectors[7:] @ turn))
    found = {}
    for name, other in (("same", vectors), ("both", vectors @ turn), ("images", halfway)):
        metrics = compare_choices(MatchingModel(vectors), MatchingModel(other), (images, prompts))
        found[name] = {metric.name: metric for metric in metrics}
    for name in ("same", "both"):
        assert found[name]["top1_agreement"].value == 1
        assert found[name]["kl_divergence"].value == pytest.approx(0, abs=1e-5)
    assert found["images"]["top1_agreement"].value < 0.6
    cosine = (vectors * (vectors @ turn)).sum(-1) / np.square(vectors).sum(-1)
    for name, part in (("image_cosine", cosine[10:]), ("text_cosine", cosine[:7])):
        assert found["same"][name].value == pytest.approx(1)
        assert found["both"][name].value == pytest.approx(part.mean(), abs=1e-5)
    assert found["images"]["text_cosine"].value == pytest.approx(1)
    assert (found["both"]["image_cosine"].samples, found["both"]["text_cosine"].samples) == (50, 7)


def test_every_task_has_an_evaluator() -> None:
    known = ["answers", "choices", "embedding", "generation", "labels", "perplexity", "targets"]
    known += ["tensors", "transcripts"]
    assert EVALUATORS.names() == known
    for task in TASKS.names():
        found = evaluators_for(task)
        assert [each.judges for each in found] == [True] + [False] * (len(found) - 1)
        writes = task in ("text-generation", "text2text-generation", "automatic-speech-recognition")
        assert (len(found) > 1) == writes
    with pytest.raises(InputError, match="perplexity"):
        EVALUATORS.get("perplexty")
