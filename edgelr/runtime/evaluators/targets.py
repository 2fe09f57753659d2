"""Sequence to sequence: how both models predict what the original answers to each source.

Labels would tell how good a model is; here the question is whether the compressed one still says
the same. So the targets are drawn from the original: the logarithm of the ratio of the perplexities
is then expected to be the divergence of the two models, per token. Of its likeliest answers it is
not: a model that became too sure of itself would seem to be better than the original. Both read the
targets token by token, so that one early difference does not make another text of all that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgelr.core.results import Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, Evaluator, TeacherForcedRunner
from edgelr.runtime.evaluators.perplexity import compared, metrics_of


def compare_targets(
    reference: TeacherForcedRunner,
    candidate: TeacherForcedRunner,
    samples: Sequence[tuple[Array, Array]],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the predictions of every token of given targets; one at a time.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: source ``(length,)`` and its target ``(tokens + 1,)`` each, from the start token.
        progress: callback after each target.

    Returns:
        ``perplexity`` of the targets, ``kl_divergence`` (mean of KL(reference || candidate) per
        token, in nats) and ``top1_agreement`` (share of equal most likely tokens).
    """
    rows = []
    for done, (source, target) in enumerate(samples, start=1):
        expected = reference.forced(source[None], target[None])[0]
        found = candidate.forced(source[None], target[None])[0]
        rows.append(compared(expected, found, target[1:]))
        if progress:
            progress("evaluate", done, len(samples))
    return metrics_of(rows)


EVALUATORS.register("targets")(
    Evaluator(("text2text-generation", "automatic-speech-recognition"), compare_targets)
)
