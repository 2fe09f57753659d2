"""What a plan aims for is met: a share, a size, a time, an accuracy, and the device's memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgelr import pipeline
from edgelr.compress.decompose import truncate
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.core.vocabulary import PRECISION_BYTES, Precision
from edgelr.device.latency import slower_than_dense
from edgelr.device.profile import DeviceProfile, load_profile, profile_path
from edgelr.graph.save import load_graph
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.planning.files import write_plan
from edgelr.stages.objectives import fixed_bytes
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import write_bundle
from edgelr.stages.transformers.factorize import Factored, make_factors
from tests.helpers.devices import measured
from tests.helpers.run_exports import Recorder, make_place, quick_settings, session_cache

PlanDecoder = Callable[..., Planned]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def plan_decoder(tiny_decoder: LoadedModel, cache: Cache) -> PlanDecoder:
    """Plan the tiny decoder with changed settings; return the listener's notes as well."""

    def make(
        given: Path | None = None, recorder: Recorder | None = None, **changes: object
    ) -> Planned:
        settings = quick_settings(tiny_decoder.folder, **changes)
        device = load_profile(settings.profile)
        return pipeline.plan(settings, device, Run(cache, recorder or Recorder()), given_plan=given)

    return make


def leaving(weight_bytes: int, made: Planned) -> DeviceProfile:
    """Change the memory of a plan's device, so that it leaves so much for the planned weights."""
    device, more_bytes = made.subject.device, weight_bytes - made.budget.weight_bytes
    visible = device.memory.visible
    changed = visible.model_copy(update={"value": visible.value + more_bytes / 2**20})
    memory = device.memory.model_copy(update={"visible": changed})
    return device.model_copy(update={"memory": memory})


def write(made: Planned, folder: Path) -> ExportBundle:
    factored = Factored(truncate(made.spectra, made.plan))
    return write_bundle(made, factored, make_place(folder)).bundle


def test_an_edited_plan_is_followed_and_priced_again(
    plan_decoder: PlanDecoder, tmp_path: Path
) -> None:
    made = plan_decoder(keep=0.6)
    sites = list(made.plan.sites)
    sites[0] = replace(sites[0], candidate=replace(sites[0].candidate, form="dense"))
    sites[6] = replace(sites[6], candidate=replace(sites[6].candidate, form="low_rank", rank=5))
    write_plan(replace(made.plan, sites=tuple(sites)), tmp_path / "plan.json")
    followed = plan_decoder(given=tmp_path / "plan.json", keep=0.6)
    graph = load_graph(write(followed, tmp_path / "out").model_path).graph
    shape = (sites[6].in_features, 5)
    assert tuple(graph.initializers[f"{sites[6].name}.down"].shape or ()) == shape
    assert not any(name.startswith(f"{sites[0].name}.") for name in graph.initializers)
    first, seventh = followed.plan.sites[0].candidate, followed.plan.sites[6].candidate
    assert (first.bytes, first.predicted_loss) == (sites[0].dense_bytes, 0.0)
    assert seventh.bytes == 4 * 5 * (sites[6].in_features + sites[6].out_features)
    assert followed.plan.planned_bytes == sum(s.candidate.bytes for s in followed.plan.sites)


def test_a_plan_of_another_model_is_refused(plan_decoder: PlanDecoder, tmp_path: Path) -> None:
    made = plan_decoder(keep=0.6)
    write_plan(replace(made.plan, sites=made.plan.sites[1:]), tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"13 sites and the model 14.*this very model"):
        plan_decoder(given=tmp_path / "plan.json", keep=0.6)


def test_keeping_everything_leaves_every_linear_dense(
    plan_decoder: PlanDecoder, tmp_path: Path
) -> None:
    for recipe in ("edgelr", "svd", "welore"):
        made = plan_decoder(keep=1.0, recipe=recipe)
        assert {site.candidate.form for site in made.plan.sites} == {"dense"}, recipe
        assert (made.plan.kept, made.plan.predicted_loss) == (1.0, 0.0)
    assert write(made, tmp_path).model_path.exists()


@pytest.mark.parametrize(
    ("precision", "size"), [("float32", "215KB"), ("float32", "230000"), ("float16", "150KB")]
)
def test_a_file_stays_within_max_size(
    plan_decoder: PlanDecoder, precision: str, size: str, tmp_path: Path
) -> None:
    made = plan_decoder(max_size=size, precision=precision)
    limit = made.subject.settings.max_size_bytes or 0
    assert 0.7 * limit < write(made, tmp_path).weight_bytes <= limit


def test_a_max_size_above_the_original_is_said_to_ask_for_nothing(
    plan_decoder: PlanDecoder,
) -> None:
    recorder = Recorder()
    made = plan_decoder(recorder=recorder, max_size="5MB", precision="float32")
    assert made.plan.kept == 1.0
    (note,) = (note for note in recorder.notes if note.startswith("--max-size"))
    size = made.dense.bundle.weight_bytes / 1e6
    assert f"allows 5.0 MB, and the original takes {size:.1f} MB in float32" in note


def test_a_max_size_below_every_plan_names_one_that_works(
    plan_decoder: PlanDecoder, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="nearest feasible point is about --max-size") as refused:
        plan_decoder(max_size="50KB")
    named = str(refused.value).rpartition("--max-size ")[2].rstrip(".")
    assert plan_decoder(max_size=named).plan.planned_bytes > 0


def test_max_drop_searches_the_smallest_plan_inside_it(
    plan_decoder: PlanDecoder,
) -> None:
    recorder = Recorder()
    small = plan_decoder(recorder=recorder, max_drop=0.2)
    large = plan_decoder(max_drop=0.002)
    assert small.plan.planned_bytes < large.plan.planned_bytes
    assert small.loss_factor is not None
    assert recorder.notes[0].startswith("search, round 1: ")


@pytest.mark.parametrize(
    ("aim", "note"),
    [
        ({"keep": 0.9}, "The device leaves .* the plan is made for the device"),
        ({"max_size": "1GB"}, "The device leaves .* the plan is made for the device"),
        ({"max_drop": 1e-9}, "No smaller plan stays inside the accuracy gate: the largest that"),
    ],
    ids=["keep", "max_size", "max_drop"],
)
def test_a_plan_that_the_device_cannot_hold_is_made_for_the_device(
    plan_decoder: PlanDecoder, cache: Cache, aim: dict[str, Any], note: str
) -> None:
    recorder, free = Recorder(), plan_decoder(**aim)
    smallest = free.search.plan(free.search.smallest_bytes).resident_bytes
    device = leaving((smallest + free.plan.resident_bytes) // 2, free)
    found = pipeline.plan(free.subject.settings, device, Run(cache, recorder))
    assert smallest < found.plan.resident_bytes <= found.budget.weight_bytes
    assert found.budget.weight_bytes - found.plan.resident_bytes < 4096  # one step of a rank
    assert re.match(note, recorder.notes[-1])
    assert found.loss_factor is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_never_planned_takes_the_rest_of_the_file(
    plan_decoder: PlanDecoder, precision: Precision
) -> None:
    made = plan_decoder(keep=1.0, precision=precision)
    file_bytes, width = made.dense.bundle.weight_bytes, PRECISION_BYTES[precision]
    planned = sum(site.parameters for site in made.subject.sites)
    assert fixed_bytes(made.subject, made.dense) == (file_bytes - 4 * planned) * width // 4
    assert made.plan.planned_bytes == width * planned


def test_a_board_that_is_too_small_gets_the_nearest_feasible_point(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    board = yaml.safe_load(profile_path("generic-cpu").read_text())
    board["memory"]["visible"]["value"] = 819 + 128 + 1
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({**board, "id": "board"}))
    profile = str(tmp_path / "board.yaml")
    settings = quick_settings(tiny_decoder.folder, profile=profile)
    with pytest.raises(BudgetError, match=r"board leaves 0:(?s:.*)MiB short") as refused:
        pipeline.plan(settings, load_profile(profile), Run(cache, Recorder()))
    assert refused.value.exit_code == 4


# --- latency as a budget -------------------------------------------------------------------------


def predicted_ms(made: Planned, folder: Path, cache: Cache) -> float:
    """Predict the graph that a plan becomes."""
    place = make_place(folder)
    bundle = write_bundle(made, make_factors(made, Run(cache, Recorder())), place).bundle
    subject = made.subject
    clock, run = subject.clock, subject.runs[-1]
    return clock.milliseconds(read_workload(bundle.model_path), run)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_plan_takes_no_longer_than_it_may(
    tiny_encoder: LoadedModel,
    tmp_path: Path,
    cache: Cache,
    precision: str,
) -> None:
    device = load_profile("raspberry-pi-5-8gb")

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


def test_a_plan_that_is_fast_enough_also_fits(tiny_decoder: LoadedModel, cache: Cache) -> None:
    device = load_profile("raspberry-pi-5-8gb")

    def planned(board: DeviceProfile, **aim: float) -> Planned:
        settings = quick_settings(tiny_decoder.folder, precision="auto", **aim)
        return pipeline.plan(settings, board, Run(cache, Recorder()))

    with pytest.raises(BudgetError, match="nearest feasible point") as error:
        planned(device, max_latency=1e-6)
    fastest_ms = float(str(error.value).split()[-1].rstrip("."))
    roomy = planned(device, max_latency=1.02 * fastest_ms)
    most = roomy.plan.resident_bytes
    smallest = roomy.search.plan(roomy.search.smallest_bytes).resident_bytes
    room = (most + smallest) // 2
    made = planned(leaving(room, roomy), max_latency=1.02 * fastest_ms)
    assert made.plan.resident_bytes <= made.budget.weight_bytes < most
    assert made.plan.predicted_loss > roomy.plan.predicted_loss


def test_a_device_without_rates_has_no_latency_to_plan_for(
    tiny_encoder: LoadedModel, cache: Cache
) -> None:
    settings = quick_settings(tiny_encoder.folder, max_latency=1.0)
    device = load_profile("generic-cpu")
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
    tiny_encoder: LoadedModel, cache: Cache
) -> None:
    plain = load_profile("raspberry-pi-5-8gb")
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
    tiny_encoder: LoadedModel, cache: Cache
) -> None:
    device = load_profile("raspberry-pi-5-8gb")
    device = measured(device, 0.7, node_us=1.0)
    settings = quick_settings(tiny_encoder.folder, keep=0.5, precision="float32")
    found = pipeline.plan(settings, device, Run(cache, Recorder()))
    by_bytes = replace(found.search, price=None).plan(found.plan.budget_bytes)
    clock = found.subject.clock
    groups = {group.name: group for group in found.search.groups}

    def seconds(plan: Plan) -> float:
        named = {site.group or site.name: site.candidate for site in plan.sites}
        return sum(clock.group_seconds(groups[name], each, 512) for name, each in named.items())

    assert found.plan.planned_bytes <= found.plan.budget_bytes
    assert seconds(found.plan) < seconds(by_bytes)
    assert found.plan.predicted_loss > by_bytes.predicted_loss


def test_published_ways_to_spread_bytes_stay_as_they_were_published(
    tiny_encoder: LoadedModel, cache: Cache
) -> None:
    settings = quick_settings(tiny_encoder.folder, keep=0.6, recipe="welore")
    device = measured(load_profile("raspberry-pi-5-8gb"))
    found = pipeline.plan(settings, device, Run(cache, Recorder()))
    assert found.search.price is None
