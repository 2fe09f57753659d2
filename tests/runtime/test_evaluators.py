"""Evaluators: their registry, and predictions of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgelr.core.errors import InputError
from edgelr.core.results import Metric
from edgelr.core.tasks import TASKS
from edgelr.runtime.evaluators import EVALUATORS, evaluators_for
from edgelr.runtime.evaluators.perplexity import compare_language_models

VOCABULARY, LENGTH, CHUNKS = 13, 70, 3  # 70 positions: more than one block of rows, no multiple
CHUNK_IDS = np.random.default_rng(1).integers(VOCABULARY, size=(CHUNKS, LENGTH))


class TableModel:
    """Predicts the next token from the current one alone."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def logits(self, input_ids: np.ndarray) -> tuple[np.ndarray, Any]:
        return self.table[input_ids], None


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


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    model = random_model(0)
    compare_language_models(model, model, CHUNK_IDS, lambda *call: calls.append(call))
    assert calls == [("evaluate", done, CHUNKS) for done in (1, 2, 3)]


def test_every_task_has_an_evaluator() -> None:
    known = ["answers", "choices", "embedding", "generation", "labels", "perplexity", "ranking"]
    known += ["targets", "tensors", "transcripts"]
    assert EVALUATORS.names() == known
    for task in TASKS.names():
        found = evaluators_for(task)
        assert [each.judges for each in found] == [True] + [False] * (len(found) - 1)
        writes = task in ("text-generation", "text2text-generation", "automatic-speech-recognition")
        assert (len(found) > 1) == writes
    with pytest.raises(InputError, match="perplexity"):
        EVALUATORS.get("perplexty")
