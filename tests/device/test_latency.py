"""Predicted latency: rooflines, measured tables, and what a graph computes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgelr.core.dimensions import ModelShape
from edgelr.core.measurement import Prediction
from edgelr.device.latency import (
    LatencyModel,
    PhaseSize,
    Product,
    Workload,
    can_predict,
    device_runs,
    predict,
)
from edgelr.device.profile import DeviceProfile, load_profile, profile_names
from tests.helpers.devices import measured

DECODER = ModelShape(30, 576, 1536, 9, 3, 64, 49152)
ENCODER = replace(DECODER, kv_heads=0)
MATRIX = Product(1000, 500, "float16")

every_profile = pytest.mark.parametrize("name", profile_names())


@pytest.fixture
def jetson() -> DeviceProfile:
    return load_profile("jetson")


def workload(kept: float = 1.0) -> Workload:
    return Workload((Product(1000, round(500 * kept), "float16"),) * 100, 0)


def prediction_of(device: DeviceProfile, shape: ModelShape, kept: float) -> Prediction | None:
    runs = device_runs(device, shape, 2048)
    return predict(device, shape, "float16", workload(), workload(kept), runs, 123)


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
