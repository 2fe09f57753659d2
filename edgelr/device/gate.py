"""The accuracy gate: one number, ``max_drop``, and the figure that it limits.

For a decoder it is the relative increase of the perplexity, for an encoder one minus the mean
cosine between the embeddings of the original and of the bundle, for a reranker one minus the rank
correlation of their scores, and for a model that labels the share of its labels that change: no
accuracy can fall by more. What decides is the bad end of the
figure's interval: a bundle passes where its sample shows that it does, and not by luck.
"""

from __future__ import annotations

import math

from edgelr.core.intervals import surely_below
from edgelr.core.results import Gate, Metric
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.device.profile import DeviceProfile

JUDGED = 500  # texts or images, as a rule


def profile_drop(device: DeviceProfile, task: Task) -> float:
    """Read the drop that a profile lets through."""
    metric = TASKS.get(task).metric
    if metric == "perplexity":
        return device.gate.max_perplexity_increase.value
    gate = device.gate
    least = {
        "mean_cosine": gate.min_mean_cosine.value,
        "spearman": gate.min_spearman.value,
        "top1_agreement": gate.min_top1_agreement.value,
    }[metric]
    return round(1 - least, 12)


def loss_limit(max_drop: float, task: Task) -> float:
    """Turn a drop into the unit of the predicted loss: nats, or one minus a cosine or correlation.

    Of labels, see ``compressed.gate_increase``: so many of them may change that the gate still
    passes where ``JUDGED`` texts or images are judged.
    """
    metric = TASKS.get(task).metric
    if metric == "top1_agreement":
        return 2 * surely_below(min(max_drop, 1.0), JUDGED) ** 2
    return math.log1p(max_drop) if metric == "perplexity" else max_drop


def make_gate(task: Task, metrics: tuple[Metric, ...], max_drop: float) -> Gate:
    """Set the figure that decides beside its limit."""
    name = TASKS.get(task).metric
    (judged,) = (metric for metric in metrics if metric.name == name)
    found = judged.interval
    if name == "perplexity":
        limit = (judged.baseline or 0.0) * (1 + max_drop)
        worst = None if found is None else found.high
        return Gate(name, judged.value, limit, False, worst, judged.samples)
    worst = None if found is None else found.low
    return Gate(name, judged.value, 1 - max_drop, True, worst, judged.samples)
