from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgelr.errors import InputError
from edgelr.evaluators import EVALUATORS, evaluators_for
from edgelr.evaluators.choices import compare_choices
from edgelr.evaluators.embedding import compare_embeddings, overlap, spearman
from edgelr.evaluators.perplexity import compare_language_models
from edgelr.tasks import METRICS
from edgelr.types import Metric

VOCABULARY, LENGTH, CHUNKS = 13, 70, 3  # 70 positions: more than one block of rows, no multiple
CHUNK_IDS = np.random.default_rng(1).integers(VOCABULARY, size=(CHUNKS, LENGTH))


class TableModel:
    """Predicts the next token from the current one alone."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def logits(self, input_ids: np.ndarray) -> tuple[np.ndarray, Any]:
        return self.table[input_ids], None


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
    names = ["choices", "embedding", "labels", "perplexity", "targets", "tensors"]
    assert EVALUATORS.names() == names
    for task in METRICS:
        assert len(evaluators_for(task)) == 1
    with pytest.raises(InputError, match="perplexity"):
        EVALUATORS.get("perplexty")
