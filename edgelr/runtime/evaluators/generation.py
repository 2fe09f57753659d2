"""Generated text: for how long both models write the same, and how far apart they are on the way.

Fed the same tokens, a model may be close to its original and yet soon write another text: one other
token changes all that follows. So what both write freely stands beside what both predict for the
text of the original, token by token (teacher forcing). These are figures, and no gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.core.intervals import figure_interval, mean_interval, share_interval
from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.generation import until_end
from edgelr.runtime.evaluators import EVALUATORS, Evaluator, GeneratingRunner
from edgelr.runtime.evaluators.perplexity import compared

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 16, 32
POSITIONS = (1, 5, 17)  # of new tokens: where a row of the table begins
_STEPPED = 1  # prompts whose text is read again, token by token


def compare_generations(
    reference: GeneratingRunner,
    candidate: GeneratingRunner,
    samples: Any,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Let both models write greedily behind the same prompts, up to an end of the original's text.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: samples of the original's runner, from which it takes prompts.
        progress: callback after each part of the work.

    Returns:
        ``same_tokens`` (median, over the prompts, of the tokens before the first that differs),
        ``same_texts`` (share that never differ), ``free_agreement`` (share of equal tokens at equal
        places), ``forced_agreement`` (share of equal likeliest tokens where both are fed the
        original's text), ``forced_kl`` (mean of KL(reference || candidate) there, in nats,
        of all tokens and by their place) and ``step_error`` (the largest difference between the
        logits of a text that is read token by token and at once, over the largest logit; its
        baseline is that of the original).
    """
    prompts, new_tokens = reference.prompts(samples, PROMPTS, PROMPT_TOKENS, NEW_TOKENS)
    wanted = reference.continued(prompts, new_tokens)
    _tell(progress, 1)
    found = candidate.continued(prompts, new_tokens)
    _tell(progress, 2)
    texts = [np.array(until_end(row.tolist(), reference.ends)) for row in wanted]
    same = [row[: len(text)] == text for row, text in zip(found, texts, strict=True)]
    forced = [
        compared(reference.predicted(prompt, text), candidate.predicted(prompt, text), text)[2:]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    _tell(progress, 3)
    errors = [
        max(_step_error(runner, *pair) for pair in list(zip(prompts, rows, strict=True))[:_STEPPED])
        for runner, rows in ((reference, texts), (candidate, list(found)))
    ]
    _tell(progress, 4)
    stepped = sum(map(len, texts[:_STEPPED]))
    return (
        *_same(same),
        _share("free_agreement", same),
        _share("forced_agreement", [agrees == 1 for _, agrees in forced]),
        *_divergences([apart for apart, _ in forced]),
        Metric("step_error", errors[1], errors[0], stepped),
    )


def _step_error(runner: GeneratingRunner, prompt: Array, text: Array) -> float:
    at_once, by_steps = (runner.predicted(prompt, text, steps) for steps in (False, True))
    error = float(np.abs(by_steps - at_once).max())
    return error / float(np.abs(at_once).max()) if error else 0.0


def _same(texts: Sequence[Array]) -> tuple[Metric, Metric]:
    """Count what is written before the first difference, and texts that have none."""
    tokens = np.array([int(np.cumprod(each).sum()) for each in texts])
    median = float(np.median(tokens))
    around = figure_interval(lambda places: float(np.median(tokens[places])), len(tokens))
    if around is not None:
        low, high = max(around.low, float(tokens.min())), min(around.high, float(tokens.max()))
        around = Interval(low, high, around.units)
    whole = np.array([bool(each.all()) for each in texts])
    sure = share_interval(whole, len(whole))
    return (
        Metric("same_tokens", median, None, len(tokens), "tokens", around),
        Metric("same_texts", float(whole.mean()), None, len(whole), "", sure),
    )


def _share(name: str, texts: Sequence[Array]) -> Metric:
    """Average truth values over the tokens of all texts."""
    every = np.concatenate(texts)
    sure = share_interval(every, len(texts))
    return Metric(name, float(every.mean()), None, len(every), "", sure)


def _divergences(texts: Sequence[Array]) -> list[Metric]:
    """Average over all tokens, and over those at the same places of their texts."""
    ends = [*(first - 1 for first in POSITIONS[1:]), NEW_TOKENS]
    ranges = [("", 0, NEW_TOKENS)]
    ranges += [
        (f" at {first} to {last}", first - 1, last)
        for first, last in zip(POSITIONS, ends, strict=True)
    ]
    metrics = []
    for place, start, stop in ranges:
        parts = [text[start:stop] for text in texts if len(text) > start]
        if parts:
            means, counts = np.array([part.mean() for part in parts]), np.array([*map(len, parts)])
            mean = float((means * counts).sum() / counts.sum())
            sure = mean_interval(means, counts)
            name, total = f"forced_kl{place}", int(counts.sum())
            metrics.append(Metric(name, mean, None, total, "nats/token", sure))
    return metrics


def _tell(progress: Progress | None, done: int) -> None:
    if progress:
        progress("generate", done, 4)


EVALUATORS.register("generation")(
    Evaluator(("text-generation", "text2text-generation"), compare_generations, judges=False)
)
