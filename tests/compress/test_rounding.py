"""Contract of every rounding: what is stored is of its layout, and loses no more than nearest."""

from __future__ import annotations

import numpy as np
import pytest

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.rounding import ROUNDING, ArrayMetric
from edgelr.core.vocabulary import LAYOUTS, Array

ALL = tuple(LAYOUTS)

every_rounding = pytest.mark.parametrize("name", ROUNDING.names())


def gram(size: int, seed: int = 0) -> Array:
    """Gram of inputs that are correlated, and of very different size, as hidden states are."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((size, size)) * np.logspace(0, -1.5, size)
    inputs = random.standard_normal((4 * size, size)) @ mixed.T
    return inputs.T @ inputs / len(inputs)


def weight(outputs: int, inputs: int, seed: int = 1) -> Array:
    """A weight with a few large numbers, as real ones have."""
    return np.random.default_rng(seed).standard_t(5, (outputs, inputs)) * 0.05


def loss(given: Array, stored: Blocks, metric: ArrayMetric) -> float:
    output_gram, input_gram = metric
    error = given - stored.dense().T.astype(np.float64)
    weighed = error if input_gram is None else error @ input_gram
    return 0.5 * float(((error if output_gram is None else output_gram @ error) * weighed).sum())


@every_rounding
@pytest.mark.parametrize("shape", [(24, 256), (7, 70), (1, 33), (5, 8)])
@pytest.mark.parametrize("metric", ["inputs", "none"])
def test_no_rounding_loses_more_than_nearest_in_the_metric_that_it_looks_at(
    name: str, shape: tuple[int, int], metric: str
) -> None:
    given, inputs = weight(*shape), None if metric == "none" else gram(shape[1])
    judged = None if inputs is None else np.diag(inputs.diagonal())
    sides: ArrayMetric = (None, judged if name == "searched" else inputs)
    found = ROUNDING.get(name).round(given, (None, inputs), ALL)
    rivals = ROUNDING.get("nearest").round(given, sides, ALL)
    for layout, stored, rival in zip(LAYOUTS.values(), found, rivals, strict=True):
        assert stored.layout == layout
        assert stored.scales.shape == (shape[0], layout.blocks(shape[1]))
        assert stored.dense().shape == shape[::-1]
        assert loss(given, stored, sides) <= 1.01 * loss(given, rival, sides)


@every_rounding
def test_the_same_input_gives_the_same_bytes_alone_or_with_other_precisions(name: str) -> None:
    given, metric = weight(24, 128), (None, gram(128))
    rounding = ROUNDING.get(name)
    for precision, stored in zip(ALL, rounding.round(given, metric, ALL), strict=True):
        (alone,) = rounding.round(given, metric, [precision])
        np.testing.assert_array_equal(stored.packed, alone.packed)
        np.testing.assert_array_equal(stored.scales, alone.scales)
        np.testing.assert_array_equal(stored.zero_points, alone.zero_points)


@every_rounding
@pytest.mark.parametrize("kind", ["zero", "one sign", "tiny", "dead inputs", "no inputs"])
def test_odd_weights_and_inputs_stay_finite(name: str, kind: str) -> None:
    given, inputs = weight(12, 96), gram(96)
    if kind == "zero":
        given = np.zeros_like(given)
    elif kind == "one sign":
        given = np.abs(given) + 1
    elif kind == "tiny":
        given = 1e-30 * given
    elif kind == "dead inputs":
        inputs[:, 10:50] = inputs[10:50] = 0
    else:
        inputs = np.zeros_like(inputs)
    rounded = dict(zip(ALL, ROUNDING.get(name).round(given, (None, inputs), ALL), strict=True))
    for stored in rounded.values():
        assert np.isfinite(stored.dense()).all()
    error = np.abs(rounded["int8"].dense().T - given).max()
    assert error <= 0.02 * np.abs(given).max()


def test_errors_that_later_inputs_make_up_for_cost_less() -> None:
    given, metric = weight(48, 256), (None, gram(256))
    nearest, searched, gptq = (
        [loss(given, each, metric) for each in ROUNDING.get(name).round(given, metric, ALL)]
        for name in ("nearest", "searched", "gptq")
    )
    for index, layout in enumerate(LAYOUTS.values()):
        assert gptq[index] < 0.6 * nearest[index]
        assert searched[index] < (1.01 if layout.bits == 8 else 0.97) * nearest[index]


def test_rows_are_rounded_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of embeddings is rounded in parts, which must not be seen in it."""
    given, metric = weight(40, 64), (None, gram(64))
    whole = ROUNDING.get("gptq").round(given, metric, ["int4"])[0]
    monkeypatch.setattr("edgelr.compress.rounding.gptq.CHUNK_NUMBERS", 64 * 7)
    parts = ROUNDING.get("gptq").round(given, metric, ["int4"])[0]
    assert loss(given, parts, metric) == pytest.approx(loss(given, whole, metric), rel=0.02)
    assert parts.packed.shape == whole.packed.shape
