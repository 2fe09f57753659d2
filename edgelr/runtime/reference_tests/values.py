"""Reference values stored for a bundle's regression tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelr.core.vocabulary import Array

WHOLE = 4  # inputs whose outputs are stored as they are, and that are run together
COLUMNS = 2048  # of the vocabulary, spread over it: enough to see that a row is wrong
GREEDY_TOKENS = 16


@dataclass(frozen=True)
class ReferenceValues:
    """Values that are stored of one bundle.

    Attributes:
        arrays: inputs and answers.
        scale: largest output.
        noise: share of it by which two ways of running the same inputs differ.
        at_export: agreement with the original, in the unit of the gate.
        decisions: number of labels that agree or do not; 0 where the agreement is a number.
        several_labels: whether each label is decided alone.
    """

    arrays: dict[str, Array]
    scale: float
    noise: float
    at_export: float
    decisions: int = 0
    several_labels: bool = False


def columns_of(width: int) -> Array:
    """Spread at most ``COLUMNS`` places over the vocabulary."""
    return np.unique(np.linspace(0, width - 1, COLUMNS).round().astype(np.int64))


def leads_of(logits: Array) -> Array:
    """Find by how much the likeliest token leads the second, ``(tokens,)``."""
    second, first = np.sort(logits, axis=-1)[:, -2:].T
    leads: Array = (first - second).astype(np.float32)
    return leads
