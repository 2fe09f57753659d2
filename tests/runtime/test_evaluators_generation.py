"""Generated text: for how long both models write the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgelr.core.results import Metric
from edgelr.runtime.evaluators.generation import (
    NEW_TOKENS,
    PROMPT_TOKENS,
    PROMPTS,
    compare_generations,
)

VOCABULARY, LENGTH, CHUNKS = 13, 70, 3
CHUNK_IDS = np.random.default_rng(1).integers(VOCABULARY, size=(CHUNKS, LENGTH))


class WritingModel:
    """Predicts a token from those before it by a table; ``step_shift`` is added by steps alone."""

    def __init__(
        self, table: np.ndarray, ends: tuple[int, ...] = (), step_shift: float = 0.0
    ) -> None:
        self.table, self.ends, self.step_shift = table.astype(np.float32), ends, step_shift

    def prompts(
        self, samples: np.ndarray, count: int, length: int, new_tokens: int
    ) -> tuple[list[np.ndarray], int]:
        starts = np.linspace(0, samples.size - length, min(count, samples.size // length))
        return [samples.reshape(-1)[int(start) :][:length] for start in starts], new_tokens

    def continued(self, prompts: Sequence[np.ndarray], new_tokens: int) -> np.ndarray:
        rows = np.stack(prompts)
        for _ in range(new_tokens):
            rows = np.append(rows, self.table[rows[:, -1:]].argmax(-1), axis=1)
        return rows[:, -new_tokens:]

    def predicted(
        self, prompt: np.ndarray, tokens: np.ndarray, by_steps: bool = False
    ) -> np.ndarray:
        return self.table[[prompt[-1], *tokens[:-1]]] + self.step_shift * by_steps


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def successor(changes: dict[int, int] | None = None) -> np.ndarray:
    """Tables that count on, modulo the vocabulary, but for ``changes``."""
    following = {token: (token + 1) % VOCABULARY for token in range(VOCABULARY)} | (changes or {})
    return 4.0 * np.eye(VOCABULARY)[[following[token] for token in range(VOCABULARY)]]


def test_a_model_writes_what_it_writes() -> None:
    model = WritingModel(np.random.default_rng(0).standard_normal((VOCABULARY, VOCABULARY)))
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
    prompts, _ = reference.prompts(chunks, PROMPTS, PROMPT_TOKENS, NEW_TOKENS)
    starts = [int(prompt[-1]) for prompt in prompts]
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
