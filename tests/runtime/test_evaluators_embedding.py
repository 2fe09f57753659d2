"""Embeddings of texts and images, and choices among prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgelr.core.results import Metric
from edgelr.runtime.evaluators.choices import compare_choices
from edgelr.runtime.evaluators.embedding import compare_embeddings, overlap


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


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


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
