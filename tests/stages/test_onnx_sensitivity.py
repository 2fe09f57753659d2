"""What a truncated linear costs the outputs of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.runtime.evaluators.tensors import distance
from edgelr.stages.onnx.components import read_components, write_components
from edgelr.stages.onnx.sensitivity import loss_curve, open_probe
from tests.helpers.foreign_graphs import mlp, random, run

pytestmark = pytest.mark.whole


def test_weights_are_replaced_run_by_run(graph: Path, tmp_path: Path) -> None:
    graph = mlp(tmp_path / "mlp.onnx")
    samples = {"x": random(3, 1, 48)}
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, samples, folder, lambda *_: None)
    probe = open_probe(graph, read_components(folder, ["first", "second", "last"]))
    (expected,) = run(graph, x=samples["x"][0])
    np.testing.assert_allclose(probe.outputs({}, samples)[0]["y"], expected, atol=1e-5)
    np.testing.assert_allclose(
        probe.outputs({"last": 32, "first": 48}, samples)[0]["y"], expected, atol=1e-4
    )
    changed = probe.outputs({"second": 3}, samples)
    distances = [
        distance(run(graph, x=x)[0], each["y"])
        for x, each in zip(samples["x"], changed, strict=True)
    ]
    found = probe.distances({"second": 3}, samples, probe.outputs({}, samples))
    assert found == pytest.approx(distances, rel=1e-3)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["mlp.onnx"]


def test_loss_curves_meet_what_was_measured_and_fall() -> None:
    error = np.array([8.0, 5.0, 3.0, 1.0, 0.0])
    loss = loss_curve(error, [1, 3], [0.5, 0.2])
    assert loss[[1, 3, 4]] == pytest.approx([0.5, 0.2, 0.0])
    assert (np.diff(loss) <= 0).all()
