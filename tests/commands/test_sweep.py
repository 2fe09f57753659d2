"""Sweeps: one calibration, honest rivals, and a word on what to ship."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgelr.commands import sweep
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import profile_path
from edgelr.model.loaded import LoadedModel
from edgelr.report.pareto import Entry, Sweep
from edgelr.report.pareto_tables import recommendation, to_markdown
from edgelr.report.schema import to_json
from tests.helpers.foreign_graphs import mlp
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

PROFILES = ("generic-cpu", "jetson")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def question(model: LoadedModel, *, rivals: bool = False, **changes: object) -> sweep.SweepRequest:
    settings = quick_settings(model.folder, max_drop=None, rivals=rivals)
    asked = sweep.SweepRequest(settings, ("generic-cpu",), (None,), (0.7,))
    return replace(asked, **changes)  # type: ignore[arg-type]


def test_many_plans_calibrate_once(
    tiny_encoder: LoadedModel, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fresh = Cache(tmp_path_factory.mktemp("fresh"))
    asked = question(tiny_encoder, profiles=PROFILES)
    found = sweep.sweep(asked, tmp_path, Run(fresh, Recorder()))
    assert [(each.profile, each.problem) for each in found.entries] == [
        (profile, "") for profile in PROFILES
    ]
    kept = [path.name.partition("-")[0] for path in fresh.root.iterdir()]
    assert kept.count("spectra") == 1
    assert kept.count("statistics") == 2  # inputs and gradients
    assert all(entry.fits for entry in found.entries)
    assert (tmp_path / "sweep.svg").stat().st_size > 1000
    assert "<svg" in (tmp_path / "sweep.html").read_text()
    assert json.loads((tmp_path / "sweep.json").read_text())["metric"] == "mean_cosine"


def test_a_sweep_has_rivals_and_goes_on_where_it_ended(
    tiny_encoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    asked = question(tiny_encoder, precisions=("float32",), rivals=True)
    first = Recorder()
    found = sweep.sweep(asked, tmp_path, Run(cache, first))
    names = [entry.name for entry in found.entries]
    assert names == ["dense float32", "dense int8", "dense int4", "edgelr float32, keep 0.7"]
    dense, int8, int4, ours = found.entries
    assert dense.loss == pytest.approx(0.0, abs=1e-6)
    assert dense.loss <= int8.loss <= int4.loss
    assert int4.file_bytes < int8.file_bytes < dense.file_bytes
    assert ours.file_bytes < dense.file_bytes
    assert {phase for phase, _ in dense.latency} == {phase for phase, _ in ours.latency}

    again = Recorder()
    wider = replace(asked, keeps=(0.7, 0.6))
    more = sweep.sweep(wider, tmp_path, Run(cache, again))
    assert more.entries[:4] == found.entries
    smaller = more.entries[4]
    assert smaller.file_bytes < ours.file_bytes
    assert smaller.memory_bytes < ours.memory_bytes
    assert [note for note in again.notes if "keep 0.7" in note] == []
    assert [note for note in again.notes if "keep 0.6" in note] != []


def test_what_cannot_be_made_is_said_and_the_rest_is_there(
    tiny_encoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    asked = question(tiny_encoder, keeps=(0.001, 0.7))
    found = sweep.sweep(asked, tmp_path, Run(cache, Recorder()))
    impossible, possible = found.entries
    assert "nearest feasible point" in impossible.problem
    assert possible.problem == ""
    assert impossible.problem.split("\n")[0] in to_markdown(found)


def entry(name: str, file_bytes: int, loss: float, *, fits: bool = True) -> Entry:
    ratios = (("prefill 128", 0.5 + loss),)
    return Entry("board", name, "", file_bytes, 1, fits, 1 - loss, 1.0, loss < 0.1, ratios)


def collected(*entries: Entry) -> Sweep:
    return Sweep(1, "now", "edgelr sweep", "m", "d", "mean_cosine", "t", (), {}, entries)


def test_the_smallest_that_fits_and_passes_is_recommended_whoever_made_it() -> None:
    plain = entry("dense int8", 50, 0.01)
    found = collected(
        entry("dense float32", 200, 0.0),
        plain,
        entry("edgelr int4, keep 0.2", 20, 0.3),
        entry("edgelr float32, keep 0.7", 140, 0.02),
        entry("edgelr auto, keep 0.1", 10, 0.0, fits=False),
    )
    assert found.best("board") == plain
    assert "ship dense int8 (" in recommendation(found, "board")
    assert "25.0 % of the original" in recommendation(found, "board")
    front = [each.name for each in found.front("board")]
    assert "edgelr float32, keep 0.7" not in front
    assert "nothing here fits" in recommendation(collected(entry("a", 1, 0.5)), "board")


def test_a_sweep_survives_json() -> None:
    found = collected(entry("dense int8", 50, 0.01), Entry("board", "b", problem="too small"))
    text = to_json(found)
    assert '"value": "NaN"' in text
    assert json.loads(text)["entries"][0]["latency"] == [["prefill 128", 0.51]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, (None,)), ("fp32,int4", ("float32", "int4")), ("auto, auto", ("auto",))],
)
def test_precisions_are_read(text: str | None, expected: tuple[str | None, ...]) -> None:
    assert sweep.read_precisions(text) == expected


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="'int3'; expected some of fp32, fp16, int8"):
        sweep.read_precisions("int3")


def test_two_devices_of_one_id_are_refused(cache: Cache, tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_text(profile_path("generic-cpu").read_text())
    question = sweep.SweepRequest(
        make_settings(model="m"), ("generic-cpu", str(copy)), (None,), (0.7,)
    )
    with pytest.raises(InputError, match="have the same id, 'generic-cpu'"):
        sweep.sweep(question, tmp_path / "out", Run(cache, Recorder()))
    assert not (tmp_path / "out").exists()


def test_a_graph_is_swept_like_a_model(cache: Cache, tmp_path: Path) -> None:
    """Its only rival is the original as it is: no other precision is made of a graph."""
    graph = mlp(tmp_path / "mlp.onnx")
    settings = make_settings(model=str(graph))
    asked = sweep.SweepRequest(settings, PROFILES, (None,), (0.8, 0.6))
    found = sweep.sweep(asked, tmp_path / "out", Run(cache, Recorder()))
    names = ["dense float32", "edgelr float32, keep 0.8", "edgelr float32, keep 0.6"]
    assert [(each.profile, each.name, each.problem) for each in found.entries] == [
        (profile, name, "") for profile in PROFILES for name in names
    ]
    dense, larger, smaller = found.entries[:3]
    assert dense.loss < 1e-6
    assert dense.file_bytes > larger.file_bytes > smaller.file_bytes
    assert [phase for phase, _ in dense.latency] == ["forward"]
