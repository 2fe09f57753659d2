"""The original graph as a bundle: what a compressed one is judged against again."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from edgelr.commands.validate import validate_again
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.runtime import measure
from edgelr.stages.onnx.original import dense_bundle, require_equal
from tests.helpers.foreign_graphs import random

pytestmark = pytest.mark.whole


def test_a_bundle_is_measured_and_judged_again(
    graph_bundle: ExportBundle,
    graph: Path,
    graph_inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    graph_cache: Cache,
) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(graph_cache.root))
    found = measure.measure_one(graph_bundle, repetitions=3)
    assert [phase.key for phase in found.phases] == ["forward"]
    own = validate_again(graph_bundle, None, None, None, "cpu", Run(graph_cache))
    given = validate_again(graph_bundle, str(graph), graph_inputs, 1e-9, "cpu", Run(graph_cache))
    assert own.passed
    assert not given.passed
    assert given.metrics[0].samples == 192


def test_a_graph_that_was_read_wrong_is_refused(graph: Path, tmp_path: Path) -> None:
    """As it would be, where edgelr folded something that it does not understand."""
    opened = dense_bundle(graph, Run(Cache(tmp_path)))
    samples = {"x": random(3, 1, 48)}
    assert require_equal(graph, opened, samples).max_abs_error == 0.0
    model = onnx.load(opened.model_path)
    weight = next(each for each in model.graph.initializer if len(each.dims) == 2)
    array = numpy_helper.to_array(weight).copy()
    array[:, [0, 1]] = array[:, [1, 0]]
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, opened.model_path)
    with pytest.raises(InputError, match=r"differs by .* from what ONNX Runtime computes"):
        require_equal(graph, opened, samples)
