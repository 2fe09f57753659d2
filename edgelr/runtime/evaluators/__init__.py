"""What "the same answers" means, one metric family per file. numpy only: runners come from outside.

An evaluator compares a candidate with the reference it was compressed from, on the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgelr.core.registry import Registry
from edgelr.core.results import Metric
from edgelr.core.vocabulary import Array, Progress, Task


class CausalRunner(Protocol):
    """A decoder: ``(batch, tokens)`` in, ``(batch, tokens, vocabulary)`` float32 out."""

    def logits(self, input_ids: Array, /) -> tuple[Array, Any]:
        """Return the logits of every position, and a cache that evaluators do not read."""
        ...


class TeacherForcedRunner(Protocol):
    """An encoder-decoder: sources, targets ``(rows, tokens + 1)``, logits of each token."""

    def forced(self, source: Array, target: Array, /) -> Array:
        """Return the logits ``(rows, tokens, vocabulary)`` of all tokens but the first."""
        ...


class GeneratingRunner(Protocol):
    """One that writes text behind prompts, or answers sources: token ids ``(length,)`` each."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        ...

    def prompts(
        self, samples: Any, count: int, length: int, new_tokens: int, /
    ) -> tuple[list[Array], int]:
        """Take prompts from samples, and say how many tokens to write behind each.

        Args:
            samples: samples of the runner.
            count: number of prompts, at most.
            length: tokens of a prompt that is cut out of a text, at most.
            new_tokens: tokens to write, at most.
        """
        ...

    def continued(self, prompts: Sequence[Array], new_tokens: int, /) -> Array:
        """Return the likeliest tokens behind each, ``(prompts, new tokens)``."""
        ...

    def predicted(self, prompt: Array, tokens: Array, by_steps: bool = False, /) -> Array:
        """Return the logits of given tokens behind a prompt, ``(tokens, vocabulary)``."""
        ...


class EmbeddingRunner(Protocol):
    """An encoder: texts or image files in, unit vectors ``(samples, features)`` float32 out."""

    def embed(self, samples: Sequence[Any], /) -> Array:
        """Return one unit vector for each sample."""
        ...


class AnsweringRunner(Protocol):
    """One that answers sources, token ids ``(length,)`` or sounds, in words."""

    def answers(self, sources: Sequence[Array], /) -> list[str]:
        """Return what is likeliest at every step, up to its end."""
        ...


class LabellingRunner(Protocol):
    """One with a head: texts or image files in, logits ``(decisions, classes)`` float32 out."""

    def decide(self, samples: Sequence[Any], /) -> Array:
        """Return the logits of the label of every sample, or of each of its tokens or masks."""
        ...


class ScoringRunner(Protocol):
    """A reranker: pairs of texts in, one score for each out, ``(pairs,)`` float32."""

    def score(self, pairs: Sequence[Any], /) -> Array:
        """Return one score for each pair."""
        ...


class MatchingRunner(Protocol):
    """One that compares images with texts: both become unit vectors ``(samples, features)``."""

    def embed(self, samples: Sequence[Any], /) -> Array:
        """Return one unit vector for each image file."""
        ...

    def embed_texts(self, texts: Sequence[str], /) -> Array:
        """Return one unit vector for each text."""
        ...

    def logits(self, images: Array, texts: Array, /) -> Array:
        """Compare vectors of images with those of texts, ``(images, texts)``."""
        ...


@dataclass(frozen=True)
class Known:
    """Samples with the truth about them.

    Attributes:
        samples: samples, as evaluators get them where nothing is known.
        truths: label ids ``(decisions,)``, -1 for those that nothing is known of; or a text for
            each sample.
    """

    samples: Any
    truths: Any


@dataclass(frozen=True, slots=True)
class Evaluator:
    """A metric family and the tasks that it judges.

    Attributes:
        tasks: tasks whose models it compares.
        compare: function of two runners (the original's and the candidate's), of the ``samples`` of
            the first, and of a callback; it returns metrics.
        judges: whether one of its figures is what the accuracy gate judges.
        reads_truths: whether it gets samples as ``Known`` where the truth is told; others get the
            samples alone.
    """

    tasks: tuple[Task, ...]
    compare: Callable[[Any, Any, Any, Progress | None], tuple[Metric, ...]]
    judges: bool = True
    reads_truths: bool = False

    def __call__(
        self, reference: Any, candidate: Any, samples: Any, progress: Progress | None = None
    ) -> tuple[Metric, ...]:
        """Compare ``candidate`` with ``reference`` on ``samples``."""
        if isinstance(samples, Known) and not self.reads_truths:
            samples = samples.samples
        return self.compare(reference, candidate, samples, progress)


EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator", package="edgelr.runtime.evaluators", group="edgelr.evaluators"
)


def evaluators_for(task: Task) -> list[Evaluator]:
    """List the evaluators of ``task``, the one that judges first, and the others by name."""
    found = [evaluator for _, evaluator in EVALUATORS.items() if task in evaluator.tasks]
    return sorted(found, key=lambda each: not each.judges)
