"""``edgelr report`` and ``edgelr diff`` on finished bundles: fast, without torch, and complete."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgelr.cli import app
from edgelr.core.report import Report
from edgelr.core.results import Gate, Metric, Parity
from edgelr.report.charts import Point, Scatter
from edgelr.report.raster import write_png
from edgelr.report.schema import from_json, to_json
from tests.helpers.paths import ROOT
from tests.helpers.reports import MIB, make_report

SECONDS = 5.0
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "matplotlib", "scipy"}


def write(folder: Path, report: Report, **settings: Any) -> Path:
    """Write what a bundle says of itself."""
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / f"{report.profile}.json").write_text(to_json(report), encoding="utf-8")
    lock = {"seed": 0, "settings": {"model": "m", "out": folder.name, **settings}}
    (folder / "edgelr").mkdir()
    (folder / "edgelr" / "lock.json").write_text(json.dumps(lock), encoding="utf-8")
    manifest = {
        "task": report.task, "modality": "decoder", "precision": "float16",
        "model_file": "onnx/m.onnx",
        "source": "m", "revision": None, "digest": "d", "opset": 18, "ir_version": 9,
        "context_tokens": 8,
    }  # fmt: skip
    (folder / "edgelr" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def smaller(report: Report) -> Report:
    """Another plan for the same model: fewer bytes, a larger loss, one more linear factorized."""
    first, second, third = report.plan.sites
    fewer = dataclasses.replace(first.candidate, rank=3, bytes=6 * MIB)
    split = dataclasses.replace(third.candidate, form="pivoted", rank=5, bytes=8 * MIB)
    sites = (
        dataclasses.replace(first, candidate=fewer),
        second,
        dataclasses.replace(third, candidate=split),
    )
    plan = dataclasses.replace(report.plan, sites=sites, planned_bytes=26 * MIB)
    assert report.validation is not None
    metrics = (Metric("perplexity", 33.5, 22.55, 16384),)
    gate = Gate("perplexity", 33.5, 24.125, higher_is_better=False)
    validation = dataclasses.replace(report.validation, metrics=metrics, gate=gate, parity=None)
    return dataclasses.replace(
        report, plan=plan, bundle_file_bytes=73 * MIB, validation=validation,
        environment={"onnxruntime": "1.30.0", "cpu": "another"},
    )  # fmt: skip


@pytest.fixture
def bundles(tmp_path: Path) -> tuple[Path, Path]:
    passing = dataclasses.replace(make_report(), environment={"onnxruntime": "1.31.1"})
    assert passing.validation is not None
    parity = Parity(1e-5, 1e-3, 1e-5, 8, 8, 32)
    passing = dataclasses.replace(
        passing, validation=dataclasses.replace(passing.validation, parity=parity)
    )
    large = write(tmp_path / "large", passing, keep=0.7)
    return large, write(tmp_path / "small", smaller(passing), keep=0.4)


def run(*words: object) -> Result:
    words_of_it = list(map(str, words))
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, words_of_it, catch_exceptions=False)


# --- without torch, at once ----------------------------------------------------------------------


@pytest.mark.parametrize("words", [["report", "--format", "html"], ["diff"], ["report", "--json"]])
def test_reading_bundles_takes_no_torch_and_few_seconds(
    bundles: tuple[Path, Path], words: list[str]
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgelr", *words, *map(str, bundles)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the machine may be busy with others
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    imported = {name.split(".")[0] for name in re.findall(r"\| +([\w.]+)$", done.stderr, re.M)}
    assert "edgelr" in imported
    assert not imported & HEAVY
    assert len(done.stdout) > 500


# --- report --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "beginning"),
    [
        ("html", "<!DOCTYPE html>"),
        ("markdown", "# tiny-model on Jetson"),
        ("json", "{\n"),
        ("card", "---\nbase_model: owner/tiny-model"),
    ],
)
def test_a_report_has_many_formats(bundles: tuple[Path, Path], kind: str, beginning: str) -> None:
    done = run("report", bundles[0], "--format", kind)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.replace("owner/tiny-model on", "tiny-model on").startswith(beginning)


def test_the_json_of_a_bundle_is_its_report(bundles: tuple[Path, Path]) -> None:
    text = run("report", bundles[0], "--json").stdout
    stored = (bundles[0] / "reports" / "jetson.json").read_text()
    assert from_json(text) == from_json(stored)


@pytest.mark.parametrize(
    ("name", "beginning"), [("a/r.html", "<!DOC"), ("r.md", "#"), ("r.json", "{")]
)
def test_the_ending_of_a_file_tells_its_format(
    bundles: tuple[Path, Path], tmp_path: Path, name: str, beginning: str
) -> None:
    out = tmp_path / name
    done = run("report", bundles[0], "--out", out)
    assert done.stdout.strip() == str(out)
    assert out.read_text().startswith(beginning)


def test_an_unknown_ending_is_refused(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("report", bundles[0], "--out", tmp_path / "r.docx")
    assert done.exit_code == 2
    assert "names no format; expected one of .html, .md, .json" in done.stderr


def test_several_bundles_are_set_beside_each_other(bundles: tuple[Path, Path]) -> None:
    shown = run("report", *bundles).stdout
    assert "ship large (90.0 MiB, 60.0 % of the original" in " ".join(shown.split())
    assert "gate failed" in shown
    entries = json.loads(run("report", *bundles, "--json").stdout)["entries"]
    assert [(each["name"], each["passed"]) for each in entries] == [
        ("large", True),
        ("small", False),
    ]
    assert "| small * | 73.0 |" in run("report", *bundles, "--markdown").stdout
    html = run("report", *bundles, "--format", "html").stdout
    assert html.count("<svg") == 4  # accuracy, memory, and two phases against size
    assert "1. large *" in html


def test_bundles_of_different_tasks_are_not_compared(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    report = make_report()
    assert report.validation is not None
    metrics = (Metric("mean_cosine", 0.9, None, 10),)
    validation = dataclasses.replace(report.validation, metrics=metrics)
    other = dataclasses.replace(report, task="feature-extraction", validation=validation)
    done = run("report", bundles[0], write(tmp_path / "other", other))
    assert done.exit_code == 2
    assert "judged by different metrics" in done.stderr


def test_a_sweep_is_reported_again(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(run("report", *bundles, "--json").stdout)
    assert run("report", tmp_path).stdout == run("report", *bundles).stdout
    (tmp_path / "sweep.json").write_text("{}")
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert "The sweep cannot be read" in done.stderr


def test_every_drawing_is_written(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    assert run("report", bundles[0], "--plots", folder).exit_code == 0
    names = {path.stem for path in folder.iterdir()}
    assert {"size", "latency", "memory", "budget", "ranks", "loss"} < names
    for name in names:
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_points_are_drawn_as_png(tmp_path: Path) -> None:
    point = Point(1, "a $ in a name", 3.0, 2.0, rival=False, usable=True, front=True)
    other = dataclasses.replace(point, number=2, x=5.0, y=1.0, rival=True, usable=False)
    write_png(Scatter("t", "d", "x", "y", (point, other)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_without_matplotlib_drawings_are_svg_and_that_is_said(
    bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelr.cli.reports.find_spec", lambda name: None)
    done = run("report", *bundles, "--plots", tmp_path / "plots")
    assert "matplotlib is not installed" in done.stderr
    written = list((tmp_path / "plots").iterdir())
    assert len(written) == 4
    assert all(path.read_text().startswith("<?xml") for path in written)


# --- diff ----------------------------------------------------------------------------------------


def test_a_diff_names_what_changed_the_largest_change_first(bundles: tuple[Path, Path]) -> None:
    found = json.loads(run("diff", *bundles, "--json").stdout)
    assert [(each["name"], each["bytes"]) for each in found["sites"]] == [
        ("model.layers.0.mlp.up_proj", -12 * MIB),
        ("model.layers.0.self_attn.q_proj", -5 * MIB),
    ]
    assert found["unchanged_sites"] == 1
    assert found["same_model"] is True
    figures = {
        each["name"]: (each["origin"], each["before"], each["after"]) for each in found["figures"]
    }
    assert figures["model files"] == ("counted", 90 * MIB, 73 * MIB)
    assert figures["perplexity"] == ("measured", 23.45, 33.5)
    assert figures["prefill 128"] == ("measured", 67.5, 67.5)
    assert figures["decode 512 on the device"] == ("predicted", 6.125, 6.125)
    assert found["settings"] == [{"name": "settings.keep", "before": "0.7", "after": "0.4"}]
    changed = {each["name"]: each["after"] for each in found["environment"]}
    assert changed == {"onnxruntime": "1.30.0", "cpu": "another"}
    assert found["notes"] == ["Latency and memory were measured on different machines."]


def test_a_diff_is_a_table_in_the_terminal(bundles: tuple[Path, Path]) -> None:
    shown = " ".join(run("diff", *bundles).stdout.split())
    for said in (
        "model files counted 90.0 MiB 73.0 MiB -18.9 %",
        "dense float16 pivoted rank 5 float16 -12,288.0",
        "1 of 3 linears are the same in both",
        "settings.keep 0.7 0.4",
        "onnxruntime 1.31.1 1.30.0",
    ):
        assert said in shown
    reverse = " ".join(run("diff", *reversed(bundles)).stdout.split())
    assert "model files counted 73.0 MiB 90.0 MiB +23.3 %" in reverse


def test_a_diff_with_itself_has_no_changes(bundles: tuple[Path, Path]) -> None:
    found = json.loads(run("diff", bundles[0], bundles[0], "--json").stdout)
    assert (found["sites"], found["settings"], found["environment"], found["notes"]) == ([],) * 4
    assert all(each["before"] == each["after"] for each in found["figures"])
    assert "3 of 3 linears are the same" in run("diff", bundles[0], bundles[0]).stdout


def test_a_diff_of_two_models_says_so(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    report = make_report()
    renamed = tuple(
        dataclasses.replace(each, name=f"other.{each.name}") for each in report.plan.sites
    )
    plan = dataclasses.replace(report.plan, sites=renamed)
    other = dataclasses.replace(report, digest="sha256:xyz", source="owner/other", plan=plan)
    shown = run("diff", bundles[0], write(tmp_path / "other", other)).stdout
    told = " ".join(shown.split())
    assert "different models: owner/tiny-model (sha256:abc) and owner/other (sha256:xyz)" in told
    assert "0 of 6 linears are the same" in told


def test_a_folder_without_a_report_is_refused(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("diff", bundles[0], tmp_path)
    assert done.exit_code == 2
    assert "has no reports/*.json" in done.stderr
