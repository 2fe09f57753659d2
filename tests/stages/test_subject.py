"""What is planned, and that the file written from a plan is what was planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edgelr import pipeline
from edgelr.compress.decompose import truncate
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.run import Run
from edgelr.device.profile import load_profile, profile_path
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.planning.files import write_plan
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import write_bundle
from edgelr.stages.transformers.factorize import Factored
from tests.helpers.run_exports import Recorder, make_place, quick_settings, session_cache

STATISTICS = {"sampling text", "input statistics", "gradient statistics", "decomposition"}
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


def write(made: Planned, folder: Path) -> ExportBundle:
    factored = Factored(truncate(made.spectra, made.plan))
    return write_bundle(made, factored, make_place(folder)).bundle


def test_statistics_made_anew_give_the_same_factors(
    plan_decoder: PlanDecoder, tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    before = plan_decoder(keep=0.6)
    fresh = Cache(tmp_path)
    for path in cache.root.glob("dense-*"):
        (tmp_path / path.name).symlink_to(path)
    recorder = Recorder()
    after = pipeline.plan(before.subject.settings, before.subject.device, Run(fresh, recorder))
    assert set(recorder.stages) >= STATISTICS
    assert after.plan == before.plan
    for path in before.spectra.folder.iterdir():
        assert path.read_bytes() == (after.spectra.folder / path.name).read_bytes()


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
