"""Outputs of graphs, compared."""

from __future__ import annotations

import numpy as np
import pytest

from edgelr.runtime.evaluators.tensors import compare_tensors, distance, relative_error
from tests.helpers.foreign_graphs import random


def test_distance_is_exact_where_it_is_small() -> None:
    x = random(1000)
    assert distance(x, x) == 0.0
    assert distance(x, -x) == pytest.approx(2.0)
    assert distance(x, 3 * x) == pytest.approx(0.0, abs=1e-12)
    assert relative_error(x, 3 * x) == pytest.approx(2.0)
    assert distance(np.array([1.0, -np.inf]), np.array([2.0, 5.0])) == 0.0
    assert np.isnan(distance(np.ones(2), np.array([1.0, np.nan])))


class _Scaled:
    def __init__(self, shift: float) -> None:
        self.shift = shift

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"same": x, "moved": x + self.shift * np.roll(x, 1)}


def test_the_evaluator_tells_outputs_apart() -> None:
    found = compare_tensors(_Scaled(0.0), _Scaled(0.5), {"x": random(6, 2, 9)})
    metrics = {metric.name: metric.value for metric in found}
    assert metrics["cosine of same"] == pytest.approx(1.0)
    assert metrics["relative_error of moved"] == pytest.approx(0.5)
    assert metrics["mean_cosine"] == pytest.approx((1 + metrics["cosine of moved"]) / 2)
    assert metrics["min_cosine"] <= metrics["cosine of moved"] < 0.98
