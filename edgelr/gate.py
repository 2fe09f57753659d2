"""The accuracy gate: one number, ``max_drop``, and the figure that it limits.

For a decoder it is the relative increase of the perplexity, for an encoder one minus the mean
cosine between the embeddings of the original and of the bundle.
"""

from __future__ import annotations

import math

from edgelr.device import DeviceProfile
from edgelr.types import Gate, Metric, Task


def profile_drop(device: DeviceProfile, task: Task) -> float:
    """Read the drop that a profile lets through."""
    if task == "text-generation":
        return device.gate.max_perplexity_increase.value
    return round(1 - device.gate.min_mean_cosine.value, 12)


def loss_limit(max_drop: float, task: Task) -> float:
    """Turn a drop into the unit of the predicted loss: nats per token, or cosine distance."""
    return math.log1p(max_drop) if task == "text-generation" else max_drop


def make_gate(task: Task, metrics: tuple[Metric, ...], max_drop: float) -> Gate:
    """Set the figure that decides beside its limit."""
    found = {metric.name: metric for metric in metrics}
    if task == "text-generation":
        perplexity = found["perplexity"]
        limit = (perplexity.baseline or 0.0) * (1 + max_drop)
        return Gate("perplexity", perplexity.value, limit, higher_is_better=False)
    return Gate("mean_cosine", found["mean_cosine"].value, 1 - max_drop, higher_is_better=True)
