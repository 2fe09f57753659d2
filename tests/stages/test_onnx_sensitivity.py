"""What a truncated linear costs the outputs of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from edgelr.core.cache import Cache
from edgelr.data.tensors import take
from edgelr.runtime.evaluators.tensors import distance
from edgelr.stages.onnx import sampling
from edgelr.stages.onnx.components import read_components, write_components
from edgelr.stages.onnx.costs import ranks_of
from edgelr.stages.onnx.sensitivity import (
    loss_curve,
    measure_losses,
    open_probe,
)
from tests.helpers.foreign_graphs import Builder, mlp, random, run
from tests.helpers.graph_exports import planned

pytestmark = pytest.mark.whole


def test_weights_are_replaced_run_by_run(graph: Path, tmp_path: Path) -> None:
    graph = mlp(tmp_path / "mlp.onnx")
    samples = {"x": random(3, 1, 48)}
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, samples, folder, lambda *_: None)
    components = read_components(folder, ["first", "second", "last"])
    probe = open_probe(graph, components, samples)
    assert probe.together > 1
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


def deep(path: Path, layers: int, width: int = 32) -> Path:
    """Layers of very different size, each added to what it reads; the last hardly matter."""
    build = Builder()
    value = "x"
    for index in range(layers):
        array = random(width, width, seed=index) / (8 + 4 * index)
        build.weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{index}"))
        build.node("MatMul", [value, f"w{index}"], f"h{index}", name=f"layer{index}")
        build.node("Tanh", [f"h{index}"], f"t{index}")
        value = build.node("Add", [value, f"t{index}"], f"r{index}")
    return build.save(path, {"x": ["batch", 6, width]}, [value])


def test_a_few_runs_predict_what_many_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = deep(tmp_path / "deep.onnx", 16)
    names = [f"layer{index}" for index in range(16)]
    samples = {"x": random(16, 1, 6, 32) @ (random(32, 32, seed=3) / 4)}
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, samples, folder, lambda *_: None)
    probe = open_probe(graph, read_components(folder, names), samples)
    told: list[tuple[str, int, int]] = []
    few = measure_losses(probe, names, samples, lambda *each: told.append(each))
    assert told[0] == ("sensitivity", 0, 16)
    assert told[-1] == ("sensitivity", 16, 16)
    expected = probe.outputs({}, samples)
    for name in names:
        for rank in (4, 10):
            measured = np.mean(probe.distances({name: rank}, samples, expected))
            assert few[name][rank] == pytest.approx(measured, rel=0.35)
    monkeypatch.setattr(sampling, "PASSES", 1)  # two linears at once
    pairs = measure_losses(probe, names, samples, lambda *_: None)
    for name in names:
        assert 0.2 < pairs[name][5] / few[name][5] < 5


def test_plans_are_predicted_as_they_are_measured(tmp_path: Path, graph_cache: Cache) -> None:
    graph = deep(tmp_path / "deep.onnx", 12, width=96)
    mixes = random(96, 96, seed=3) * np.geomspace(0.3, 0.03, 96, dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=random(128, 1, 6, 96) @ mixes)
    for keep in (0.9, 0.7):
        made = planned(graph, graph_cache, keep=keep, calibration=(str(tmp_path / "x.npz"),))
        probe, samples = made.costs.weights, take(made.subject.held_out, 0, 32)
        ranks = ranks_of(made.plan)
        measured = np.mean(probe.distances(ranks, samples, probe.outputs({}, samples)))
        assert made.plan.predicted_loss == pytest.approx(measured, rel=0.25)


def test_loss_curves_meet_what_was_measured_and_fall() -> None:
    error = np.array([8.0, 5.0, 3.0, 1.0, 0.0])
    loss = loss_curve(error, [1, 3], [0.5, 0.2])
    assert loss[[1, 3, 4]] == pytest.approx([0.5, 0.2, 0.0])
    assert (np.diff(loss) <= 0).all()
