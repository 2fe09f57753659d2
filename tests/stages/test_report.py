"""What is known about a bundle is written with it, and every file is listed with its checksum."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgelr import __version__, pipeline
from edgelr.core.bundle import MANIFEST, read_bundle
from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.core.results import Metric
from edgelr.core.run import Run
from edgelr.core.settings import read_settings
from edgelr.device.latency import device_runs
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.planning.files import read_plan
from edgelr.planning.recipes import RECIPES
from edgelr.report.schema import from_json
from edgelr.stages.report import finish, make_report, peak_bytes, remaining_losses, seal
from edgelr.stages.source import Written
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.subject import Planned
from tests.conftest import SENTENCES
from tests.helpers import reports as made_up
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

DEVICE = load_profile("raspberry-pi-5-8gb")
MADE_UP = made_up.make_report()

Tell = Callable[..., Report]


@pytest.fixture(scope="module")
def made(tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    settings = quick_settings(
        tiny_decoder.folder, keep=0.6, precision="float32", calibration=(str(text),)
    )
    return pipeline.plan(settings, DEVICE, Run(session_cache(tmp_path_factory), Recorder()))


@pytest.fixture
def source(made: Planned) -> ModelSource:
    return ModelSource(made.subject.model)


@pytest.fixture
def tell(made: Planned, source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> Tell:
    """Report on the dense export as if it were the bundle, with figures that are made up."""

    cache = session_cache(tmp_path_factory)

    def tell(planned: Planned = made, metrics: tuple[Metric, ...] | None = None) -> Report:
        assert MADE_UP.validation is not None
        assert MADE_UP.comparison is not None
        known = (
            MADE_UP.validation if metrics is None else replace(MADE_UP.validation, metrics=metrics)
        )
        bundle = planned.dense.bundle
        written, run = Written(bundle, notes=("Healed for long.",)), Run(cache, command="as asked")
        return make_report(source, planned, written, known, MADE_UP.comparison, bundle, run)

    return tell


# --- what is told --------------------------------------------------------------------------------


def test_headroom_is_what_the_plan_leaves_of_the_devices_memory(made: Planned, tell: Tell) -> None:
    taken = made.plan.resident_bytes
    for spare in (10, 0, -1):
        device_bytes = made.budget.device_bytes - made.budget.weight_bytes + taken + spare
        budget = replace(made.budget, device_bytes=device_bytes)
        found = tell(replace(made, budget=budget))
        assert (found.headroom_bytes, found.fits) == (spare, spare >= 0)
        assert found.prediction is not None
        buffers = budget.buffer_bytes + budget.fixed_weight_bytes
        assert found.prediction.resident_bytes == buffers + taken


@pytest.mark.parametrize(
    ("metric", "measured", "unit"),
    [
        (Metric("perplexity", 23.0, 20.0, 9), math.log(23 / 20), "nats per token"),
        (Metric("mean_cosine", 0.75, None, 9), 0.25, "of cosine distance"),
        (Metric("kl_divergence", 0.125, None, 9), 0.125, "nats"),
        (Metric("top1_agreement", 0.5, None, 9), None, ""),
    ],
    ids=lambda each: each.name if isinstance(each, Metric) else "",
)
def test_the_predicted_loss_stands_beside_the_measured_one_of_its_unit(
    made: Planned, tell: Tell, metric: Metric, measured: float | None, unit: str
) -> None:
    found, predicted = tell(metrics=(metric,)), made.plan.predicted_loss
    told = [note for note in found.notes if note.startswith("The plan predicted a loss of")]
    if measured is None:
        assert (found.loss, told) == (None, [])
        return
    assert found.loss is not None
    assert (found.loss.predicted, found.loss.unit) == (predicted, unit)
    assert found.loss.measured == pytest.approx(measured)
    assert len(told) == 1
    assert f"{predicted:.4f} {unit} " in told[0]
    assert told[0].endswith(f"{measured / predicted:.2f} times as much.")


def test_distances_between_weights_are_no_predicted_loss(made: Planned, tell: Tell) -> None:
    subject = replace(made.subject, recipe=RECIPES.get("svd"))
    assert tell(replace(made, subject=subject)).loss is None
    assert tell(replace(made, plan=replace(made.plan, predicted_loss=0.0))).loss is None


def test_notes_come_from_source_search_and_writing(made: Planned, tell: Tell) -> None:
    notes = tell(replace(made, loss_factor=1.5)).notes
    assert notes[0].startswith("Calibrated on: ")
    assert notes[1].endswith("on held-out data: 1.50 at this plan.")
    assert notes[2] == "Healed for long."
    assert len(tell().notes) == len(notes) - 1  # nothing was searched


def test_what_is_predicted_is_what_was_measured_where_this_is_the_device(
    made: Planned, tell: Tell
) -> None:
    """Elsewhere it is what the profile says that the device is for."""
    here = DEVICE.model_copy(update={"detect": load_profile("generic-cpu").detect})
    away, found = tell(), tell(replace(made, subject=replace(made.subject, device=here)))
    assert (away.host_is_device, found.host_is_device) == (False, True)
    assert away.prediction is not None
    assert found.prediction is not None
    assert found.comparison is not None
    keys = [phase.key for phase in found.prediction.phases]
    assert keys == [phase.key for phase in found.comparison.bundle.phases]
    prefill, decode = device_runs(DEVICE, made.subject.shape, made.subject.context_tokens)
    expected = [f"prefill {prefill.tokens}", f"decode {decode.context_tokens}"]
    assert [phase.key for phase in away.prediction.phases] == expected


def test_the_report_names_what_figures_depend_on(tell: Tell) -> None:
    found = tell()
    assert found.command == "as asked"
    assert found.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.environment["torch"] == torch.__version__
    assert found.environment["edgelr"] == __version__
    assert None not in found.environment.values()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak")
def test_the_peak_is_that_of_this_process() -> None:
    known = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_bytes() == pytest.approx(known, rel=0.05)


def test_spectra_are_shares_of_the_loss_without_any_component() -> None:
    plan = MADE_UP.plan
    names = [each.name for each in plan.sites]
    losses = {
        names[0]: np.linspace(4.0, 0.0, 11),
        names[1]: np.append(np.inf, np.linspace(4.0, 0.0, 10)),
    }
    found = remaining_losses(plan, losses)
    assert list(found) == [names[0]]  # the others have none, or no figure for rank 0
    assert found[names[0]] == pytest.approx([0.1 * left for left in range(9, 0, -1)])


# --- what is written -----------------------------------------------------------------------------


@pytest.fixture
def folder(made: Planned, tmp_path: Path) -> Path:
    return shutil.copytree(made.dense.bundle.folder, tmp_path / "bundle")


def test_a_bundle_is_finished_with_its_plan_its_report_and_its_lock(
    made: Planned, source: ModelSource, tell: Tell, folder: Path
) -> None:
    report = tell()
    finish(source, made, read_bundle(folder), report)
    manifest = read_bundle(folder, verify=True).manifest
    assert report.validation is not None
    assert manifest.gate_passed == report.validation.passed
    assert read_plan(folder / "edgelr/plan.json") == made.plan
    assert read_settings(folder / "edgelr/edgelr.yaml", {}) == made.subject.settings
    stored = (folder / "reports" / f"{DEVICE.id}.json").read_text(encoding="utf-8")
    assert from_json(stored) == report
    for name in (f"reports/{DEVICE.id}.md", f"reports/{DEVICE.id}.html"):
        assert "Healed for long." in (folder / name).read_text(encoding="utf-8")
    assert DEVICE.title in (folder / "README.md").read_text(encoding="utf-8")
    lock = json.loads((folder / "edgelr/lock.json").read_text(encoding="utf-8"))
    assert lock["edgelr"] == __version__
    assert lock["seed"] == made.subject.settings.seed
    assert lock["settings"] == json.loads(json.dumps(made.subject.settings.given()))
    assert lock["recipe"] == json.loads(json.dumps(dataclasses.asdict(made.subject.recipe)))
    assert lock["model"]["digest"] == made.subject.digest


@pytest.mark.parametrize("judged", [True, False])
def test_a_seal_lists_every_file_but_itself(folder: Path, judged: bool) -> None:
    (folder / "reports" / "deep").mkdir(parents=True)
    (folder / "reports" / "deep" / "note.txt").write_text("a note")
    validation = MADE_UP.validation if judged else None
    seal(folder, read_bundle(folder).manifest, validation)
    manifest = read_bundle(folder, verify=True).manifest
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert [file.path for file in manifest.files] == sorted(files - {MANIFEST})
    assert manifest.gate_passed == (None if validation is None else validation.passed)
    (folder / "reports" / "deep" / "note.txt").write_text("a nose")
    with pytest.raises(InputError, match="another content"):
        read_bundle(folder, verify=True)
