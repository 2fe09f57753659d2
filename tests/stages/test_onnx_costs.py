"""Plans for a graph: by what its linears cost the outputs, inside bytes, loss or time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import BudgetError
from edgelr.device.latency import PhaseSize
from edgelr.device.profile import load_profile
from edgelr.graph.workload import read_workload
from edgelr.stages.onnx.bundle import write_split_graph
from edgelr.stages.onnx.costs import graph_budget
from edgelr.stages.subject import Planned
from tests.helpers.foreign_graphs import Builder, random
from tests.helpers.graph_exports import exported, planned
from tests.helpers.run_exports import make_place

pytestmark = pytest.mark.whole


def test_ranks_follow_the_effect_on_the_outputs(tmp_path: Path, graph_cache: Cache) -> None:
    """Two equal linears, one of which hardly reaches the output: that one pays."""
    build = Builder()
    build.weight("loud", 64, 64)
    build.weights.append(numpy_helper.from_array(random(64, 64, seed=8), "quiet"))
    build.weights.append(numpy_helper.from_array(np.array(0.01, np.float32), "little"))
    build.node("MatMul", ["x", "loud"], "a", name="loud")
    build.node("MatMul", ["x", "quiet"], "b", name="quiet")
    build.node("Mul", ["b", "little"], "c")
    build.node("Add", ["a", "c"], "y")
    graph = build.save(tmp_path / "two.onnx", {"x": ["batch", 64]}, ["y"])
    plan = planned(graph, graph_cache, keep=0.8).plan
    ranks = {site.name: site.candidate for site in plan.sites}
    assert ranks["loud"].form == "dense"
    assert ranks["quiet"].form == "low_rank"


def test_without_an_aim_the_smallest_plan_inside_the_gate_is_taken(
    graph: Path, graph_inputs: Path, graph_cache: Cache
) -> None:
    made = [
        planned(graph, graph_cache, max_drop=drop, calibration=(str(graph_inputs),))
        for drop in (1e-4, 0.2)
    ]
    assert made[0].plan.planned_bytes > made[1].plan.planned_bytes
    assert made[1].loss_factor is not None


def test_files_stay_within_max_size(
    graph: Path, graph_inputs: Path, graph_cache: Cache, tmp_path: Path
) -> None:
    largest = 40_000
    aim = {"max_size": f"{largest}B", "calibration": (str(graph_inputs),)}
    exported(graph, tmp_path / "out", graph_cache, **aim)
    found = read_bundle(tmp_path / "out")
    assert 0.6 * largest < found.weight_bytes <= largest
    with pytest.raises(BudgetError, match="The nearest feasible point"):
        planned(graph, graph_cache, max_size="8KB", calibration=(str(graph_inputs),))


def test_a_plan_takes_no_longer_than_it_may(
    graph: Path, graph_inputs: Path, graph_cache: Cache
) -> None:
    device = load_profile("raspberry-pi-5-8gb")

    def made(**aim: float) -> Planned:
        options = {"profile": device.id, "calibration": (str(graph_inputs),), **aim}
        return planned(graph, graph_cache, **options)

    def predicted_ms(found: Planned) -> float:
        split = write_split_graph(found, make_place(graph_cache.root / "place").bundle).bundle
        workload = read_workload(split.model_path, tokens=1)
        return found.subject.clock.milliseconds(workload, PhaseSize(1, 1, 1))

    dense_ms = predicted_ms(made(keep=1.0))
    with pytest.raises(BudgetError, match="nearest feasible point is about --max-latency") as error:
        made(max_latency=1e-6)
    fastest_ms = float(str(error.value).split()[-1].rstrip("."))
    limit_ms = (fastest_ms + dense_ms) / 2
    fast, fastest = made(max_latency=limit_ms), made(max_latency=fastest_ms)
    assert fastest_ms <= predicted_ms(fast) * 1.02
    assert predicted_ms(fast) <= limit_ms * 1.001
    assert 0 < fast.plan.predicted_loss < fastest.plan.predicted_loss


def test_what_a_run_takes_is_measured_on_the_original(
    graph: Path, graph_inputs: Path, graph_cache: Cache
) -> None:
    made = planned(graph, graph_cache, keep=0.9, calibration=(str(graph_inputs),))
    found = graph_budget(made.subject)
    whole = made.subject.original.resident_bytes("cpu")
    assert whole is not None
    assert found.fixed_weight_bytes == whole - 4 * made.subject.planned_parameters
    assert 0 <= found.activation_bytes < 64 * 2**20
    assert found.cache_bytes == found.context_tokens == 0
