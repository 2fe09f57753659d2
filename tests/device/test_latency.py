"""Predicted latency: rooflines, measured tables, and what a graph computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.measurement import Prediction
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.device.latency import (
    LatencyModel,
    PhaseSize,
    Product,
    Workload,
    can_predict,
    device_runs,
    predict,
    slower_than_dense,
)
from edgelr.device.profile import DeviceProfile, Figure, Kernels, load_profile, profile_names
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import write_bundle
from edgelr.stages.transformers.factorize import make_factors
from tests.helpers.run_exports import Recorder, make_place, quick_settings, session_cache

DECODER = ModelShape(30, 576, 1536, 9, 3, 64, 49152)
ENCODER = replace(DECODER, kv_heads=0)
MATRIX = Product(1000, 500, "float16")
GRID = (64, 256, 1024)

every_profile = pytest.mark.parametrize("name", profile_names())


@pytest.fixture
def jetson() -> DeviceProfile:
    return load_profile("jetson")


def workload(kept: float = 1.0) -> Workload:
    return Workload((Product(1000, round(500 * kept), "float16"),) * 100, 0)


def prediction_of(device: DeviceProfile, shape: ModelShape, kept: float) -> Prediction | None:
    runs = device_runs(device, shape, 2048)
    return predict(device, shape, "float16", workload(), workload(kept), runs, 123)


def measured(device: DeviceProfile, exponent: float = 1.0, node_us: float = 2.0) -> DeviceProfile:
    """A device whose products take a power of their operations, in nanoseconds."""
    rows = tuple(
        ("float32", tokens, inputs, outputs, (tokens * inputs * outputs) ** exponent / 1e3)
        for tokens in (1, 128)
        for inputs in GRID
        for outputs in GRID
    )
    kernels = Kernels(
        source="made up",
        threads=1,
        node=Figure(value=node_us, unit="us", source="made up", verified=False),
        vector=Figure(value=1e9, unit="GB/s", source="made up", verified=False),
        attention_node=Figure(value=0.0, unit="us", source="made up", verified=False),
        attention=Figure(value=1e9, unit="TFLOPS", source="made up", verified=False),
        products=rows,
    )
    return device.model_copy(update={"kernels": kernels})


# --- rooflines ---------------------------------------------------------------------------------


@every_profile
def test_there_is_a_prediction_exactly_where_the_rates_are_known(name: str) -> None:
    device = load_profile(name)
    assert (prediction_of(device, DECODER, 0.8) is not None) == can_predict(device)


def test_one_token_is_bound_by_reading_and_a_prompt_by_arithmetic(jetson: DeviceProfile) -> None:
    clock = LatencyModel(jetson, DECODER, "float16")
    assert clock.product_seconds(MATRIX, 1) == pytest.approx(2 * 1000 * 500 / 68e9)
    assert clock.product_seconds(MATRIX, 512) == pytest.approx(2 * 512 * 500e3 / 2.56e12)


def test_a_smaller_bundle_is_predicted_to_be_faster(jetson: DeviceProfile) -> None:
    found = prediction_of(jetson, DECODER, 0.8)
    assert found is not None
    assert [phase.key for phase in found.phases] == ["prefill 512", "decode 2048"]
    assert all(phase.bundle_ms < phase.dense_ms for phase in found.phases)
    assert found.resident_bytes == 123


def test_equal_graphs_take_equal_time_and_encoders_do_not_decode(jetson: DeviceProfile) -> None:
    found = prediction_of(jetson, ENCODER, 1.0)
    assert found is not None
    (forward,) = found.phases
    assert forward.key == "forward 512"
    assert forward.dense_ms == forward.bundle_ms


def test_a_longer_context_takes_longer(jetson: DeviceProfile) -> None:
    clock, nothing = LatencyModel(jetson, DECODER, "float16"), Workload((), 0)
    short, long = (clock.milliseconds(nothing, PhaseSize(1, 1, context)) for context in (100, 1000))
    assert long == pytest.approx(10 * short)
    # keys and values of 30 layers, 3 heads of 64, 2 bytes each
    assert short == pytest.approx(1e3 * 2 * 100 * 30 * 3 * 64 * 2 / 68e9)


def test_whole_numbers_read_less(jetson: DeviceProfile) -> None:
    clock = LatencyModel(jetson, DECODER, "float16")
    times = [
        clock.product_seconds(Product(1024, 512, weights), 1)
        for weights in ("float16", "int8", "int4")
    ]
    assert times[0] > times[1] > times[2] > 0


# --- measured tables -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 64, 64), (128, 1024, 256), (16, 100, 700), (999, 9, 9999)]
)
def test_tables_give_back_what_follows_a_power_law(
    jetson: DeviceProfile, rows: int, inputs: int, outputs: int
) -> None:
    clock = LatencyModel(measured(jetson), DECODER, "float32")
    found = clock.product_seconds(Product(inputs, outputs, "float32"), rows)
    assert found == pytest.approx(rows * inputs * outputs * 1e-9)


def test_between_the_points_tables_are_interpolated(jetson: DeviceProfile) -> None:
    clock = LatencyModel(measured(jetson, exponent=0.5), DECODER, "float32")
    times = [clock.product_seconds(Product(64, out, "float32"), 1) for out in (64, 128, 256)]
    assert times[0] < times[1] < times[2]
    assert times[1] == pytest.approx((64 * 128) ** 0.5 * 1e-9)  # a power law stays one


def test_every_node_costs_what_a_node_costs(jetson: DeviceProfile) -> None:
    clock = LatencyModel(measured(jetson), DECODER, "float32")
    found = clock.milliseconds(Workload((), 500), PhaseSize(1, 1, 0))
    assert found == pytest.approx(500 * 2.0 / 1e3, rel=1e-3)


# --- latency as a budget -------------------------------------------------------------------------


def predicted_ms(made: Planned, folder: Path, cache: Cache) -> float:
    """Predict the graph that a plan becomes."""
    place = make_place(folder)
    bundle = write_bundle(made, make_factors(made, Run(cache, Recorder())), place).bundle
    subject = made.subject
    return subject.clock.milliseconds(read_workload(bundle.model_path), subject.runs[-1])


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_plan_takes_no_longer_than_it_may(
    tiny_encoder: LoadedModel,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
) -> None:
    cache, device = session_cache(tmp_path_factory), load_profile("raspberry-pi-5-8gb")

    def planned(**aim: float) -> Planned:
        settings = quick_settings(
            tiny_encoder.folder, profile=device.id, precision=precision, **aim
        )
        return pipeline.plan(settings, device, Run(cache, Recorder()))

    dense_ms = predicted_ms(planned(keep=1.0), tmp_path / "dense", cache)
    with pytest.raises(BudgetError, match="nearest feasible point is about --max-latency") as error:
        planned(max_latency=1e-6)
    fastest_ms = float(str(error.value).split()[-1].rstrip("."))
    limit_ms = (fastest_ms + dense_ms) / 2
    made = planned(max_latency=limit_ms)
    found_ms = predicted_ms(made, tmp_path / "fast", cache)
    assert fastest_ms <= found_ms * 1.02
    assert found_ms <= limit_ms * 1.001
    assert made.plan.predicted_loss > 0
    fastest = planned(max_latency=fastest_ms)
    assert fastest.plan.predicted_loss > made.plan.predicted_loss


def test_a_plan_that_is_fast_enough_also_fits(
    tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache, device = session_cache(tmp_path_factory), load_profile("raspberry-pi-5-8gb")

    def planned(board: DeviceProfile, **aim: float) -> Planned:
        settings = quick_settings(tiny_decoder.folder, precision="auto", **aim)
        return pipeline.plan(settings, board, Run(cache, Recorder()))

    def with_room(more_bytes: float) -> DeviceProfile:
        visible = device.memory.visible
        smaller = visible.model_copy(update={"value": visible.value + more_bytes / 2**20})
        memory = device.memory.model_copy(update={"visible": smaller})
        return device.model_copy(update={"memory": memory})

    with pytest.raises(BudgetError, match="nearest feasible point") as error:
        planned(device, max_latency=1e-6)
    fastest_ms = float(str(error.value).split()[-1].rstrip("."))
    roomy = planned(device, max_latency=1.02 * fastest_ms)
    most = roomy.plan.resident_bytes
    smallest = roomy.search.plan(roomy.search.smallest_bytes).resident_bytes
    room = (most + smallest) // 2
    made = planned(with_room(room - roomy.budget.weight_bytes), max_latency=1.02 * fastest_ms)
    assert made.plan.resident_bytes <= made.budget.weight_bytes < most
    assert made.plan.predicted_loss > roomy.plan.predicted_loss


def test_a_device_without_rates_has_no_latency_to_plan_for(
    tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = quick_settings(tiny_encoder.folder, max_latency=1.0)
    cache, device = session_cache(tmp_path_factory), load_profile("generic-cpu")
    with pytest.raises(InputError, match="edgelr profiles detect"):
        pipeline.plan(settings, device, Run(cache, Recorder()))


# --- no form that is slower than dense -----------------------------------------------------------


def slow_sites(made: Planned, device: DeviceProfile) -> list[str]:
    """Sites whose form takes longer than dense on a device that was measured."""
    subject = made.subject
    slower = slower_than_dense(subject.clock, subject.runs)
    groups = {group.name: group for group in made.search.groups}
    return [
        site.name
        for site in made.plan.sites
        if slower(groups[site.group or site.name], site.candidate)
    ]


def test_what_was_measured_slower_than_dense_is_only_taken_by_force(
    tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache, plain = session_cache(tmp_path_factory), load_profile("raspberry-pi-5-8gb")
    # Two small products take longer than one large where time grows with the root of operations.
    device = measured(plain, 0.5)

    def planned(device: DeviceProfile, **axes: Any) -> tuple[Planned, list[str]]:
        recorder = Recorder()
        settings = quick_settings(tiny_encoder.folder, keep=0.6, precision="float32", **axes)
        return pipeline.plan(settings, device, Run(cache, recorder)), recorder.notes

    free, _ = planned(plain)
    assert slow_sites(free, device)
    found, notes = planned(device)
    assert not slow_sites(found, device)
    assert found.plan.kept <= 0.6
    assert found.plan.predicted_loss > free.plan.predicted_loss
    assert not any("slower than dense" in note for note in notes)
    hopeless = measured(plain, node_us=1e6)
    forced, notes = planned(hopeless, forms=("dense", "pivoted"))
    assert slow_sites(forced, hopeless)
    assert forced.plan == planned(plain, forms=("dense", "pivoted"))[0].plan
    assert any("slower than dense" in note for note in notes)


def test_time_is_weighed_with_bytes_where_the_device_was_measured(
    tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache, device = session_cache(tmp_path_factory), load_profile("raspberry-pi-5-8gb")
    device = measured(device, 0.7, node_us=1.0)
    settings = quick_settings(tiny_encoder.folder, keep=0.5, precision="float32")
    found = pipeline.plan(settings, device, Run(cache, Recorder()))
    by_bytes = replace(found.search, price=None).plan(found.plan.budget_bytes)
    clock = LatencyModel(device, found.subject.shape, found.subject.precision)
    groups = {group.name: group for group in found.search.groups}

    def seconds(plan: Plan) -> float:
        named = {site.group or site.name: site.candidate for site in plan.sites}
        return sum(clock.group_seconds(groups[name], each, 512) for name, each in named.items())

    assert found.plan.planned_bytes <= found.plan.budget_bytes
    assert seconds(found.plan) < seconds(by_bytes)
    assert found.plan.predicted_loss > by_bytes.predicted_loss


def test_published_ways_to_spread_bytes_stay_as_they_were_published(
    tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = session_cache(tmp_path_factory)
    settings = quick_settings(tiny_encoder.folder, keep=0.6, recipe="welore")
    device = measured(load_profile("raspberry-pi-5-8gb"))
    found = pipeline.plan(settings, device, Run(cache, Recorder()))
    assert found.search.price is None
