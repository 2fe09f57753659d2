"""Images and prompts: how many images get another prompt, and how far both embeddings moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelr.core.intervals import mean_interval
from edgelr.core.results import Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, Evaluator, MatchingRunner
from edgelr.runtime.evaluators.labels import compare_labels


@dataclass
class _Chooser:
    """One of the two models: it decides by its own embeddings of the prompts."""

    runner: MatchingRunner
    texts: Array
    images: list[Array]  # of every batch

    def decide(self, samples: Sequence[Any]) -> Array:
        """Return the logits of every prompt for each image, ``(images, prompts)``."""
        embedded = self.runner.embed(samples)
        self.images.append(embedded)
        return self.runner.logits(embedded, self.texts)


def compare_choices(
    reference: MatchingRunner,
    candidate: MatchingRunner,
    samples: tuple[Sequence[Any], Sequence[str]],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare which of the prompts two models choose for the same images.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: image files, and prompts.
        progress: callback after each batch of images.

    Returns:
        Those of ``compare_labels``, and ``image_cosine`` and ``text_cosine``: means between the
        two embeddings of an image, and of a prompt.
    """
    images, prompts = samples
    pair = [_Chooser(runner, runner.embed_texts(prompts), []) for runner in (reference, candidate)]
    labels = compare_labels(pair[0], pair[1], images, progress)
    first, second = (np.concatenate(each.images) for each in pair)
    return (
        *labels,
        _cosine("image_cosine", first, second),
        _cosine("text_cosine", pair[0].texts, pair[1].texts),
    )


def _cosine(name: str, first: Array, second: Array) -> Metric:
    """Average the cosine of unit vectors ``(rows, features)``."""
    cosines = (first.astype(np.float64) * second).sum(-1)
    sure = mean_interval(cosines)
    return Metric(name, float(cosines.mean()), None, len(cosines), "", sure)


EVALUATORS.register("choices")(Evaluator(("zero-shot-image-classification",), compare_choices))
