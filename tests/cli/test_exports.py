"""``edgelr export``, ``plan`` and ``inspect``: files, what is printed, and what comes next."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import read_bundle
from edgelr.core.settings import read_settings
from edgelr.planning.files import read_plan
from tests.cli.conftest import Invoke
from tests.helpers.foreign_graphs import mlp, random
from tests.helpers.reports import make_report

QUICK = ["--profile", "generic-cpu", "--calibration-tokens", "512", "--calibration-length", "32"]


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """An ONNX graph as MODEL, with what it is calibrated on, in the folder of the commands."""
    np.savez(tmp_path / "inputs.npz", x=0.3 * random(192, 6) @ random(6, 48))
    model = mlp(tmp_path / "My net.onnx").name
    return [model, "--profile", "generic-cpu", "--calibration", "inputs.npz"]


def next_command(printed: str) -> list[str]:
    """Read the words of the command that is printed last, behind the program's name."""
    program, *words = shlex.split(printed.splitlines()[-1].partition("Next: ")[2])
    assert program == "edgelr"
    return words


# --- export --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--keep", "1.5"],
        ["--keep", "0"],
        ["--keep", "0.5", "--max-size", "10MB"],
        ["--max-size", "big"],
        ["--forms", "dense,kronecker"],
        ["--precision", "int3"],
        ["--calibration-tokens", "3"],
        ["-c", "/nowhere/edgelr.yaml"],
        ["--task", "fill-mask"],
    ],
)
def test_an_option_out_of_range_ends_with_2(
    run: Invoke, tiny_decoder_folder: Path, options: list[str]
) -> None:
    done = run("export", tiny_decoder_folder, "--profile", "generic-cpu", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "words",
    [
        ["export", "./nowhere"],
        ["export", "MODEL", "--profile", "jetsn"],
        ["export", "MODEL", "--recipe", "svdllm"],
        ["export", "MODEL", "--out", "MODEL"],
        ["export", "MODEL", "--calibration", "nowhere.txt"],
        ["export", "MODEL", "--plan", "nowhere.json"],
        ["export", "MODEL", "--plan", "nowhere.json", "--dry-run"],
        ["plan", "MODEL", "--out", "nowhere/plan.json"],
    ],
)
def test_what_is_known_at_once_is_told_without_torch(
    tiny_decoder_folder: Path, words: list[str]
) -> None:
    given = [str(tiny_decoder_folder) if word == "MODEL" else word for word in words]
    command = [sys.executable, "-X", "importtime", "-m", "edgelr", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert imported
    assert not imported & {"torch", "transformers"}


@pytest.mark.whole
def test_a_dry_run_writes_what_makes_the_same_plan_again(
    run: Invoke, tiny_decoder_folder: Path, tmp_path: Path
) -> None:
    done = run("export", tiny_decoder_folder, *QUICK, "--keep", "0.6", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["edgelr.yaml"]
    again = run("plan", "-c", "edgelr.yaml", "--out", "plan.json")
    assert again.exit_code == 0, again.stderr
    assert json.loads((tmp_path / "plan.json").read_text()) == json.loads(done.stdout)
    assert read_plan(tmp_path / "plan.json").kept <= 0.6
    assert "Next: edgelr export" in again.stdout


def test_a_dry_run_exports_nothing_and_names_the_command_that_does(
    run: Invoke, asked: list[str], tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    done = run("export", *asked, "--keep", "0.6", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"edgelr.yaml"}
    assert done.stdout.startswith("Nothing was exported.")
    assert next_command(done.stdout) == ["export", "-c", "edgelr.yaml"]
    assert read_settings(Path("edgelr.yaml"), {}).keep == 0.6
    assert "predicted loss" in done.stderr


@pytest.mark.whole
def test_every_command_names_one_that_works(run: Invoke, asked: list[str], tmp_path: Path) -> None:
    planned = run("plan", *asked, "--keep", "0.7")
    exported = run(*next_command(planned.stdout))
    assert exported.exit_code == 0, exported.stderr
    bundle = read_bundle(tmp_path / "my net-generic-cpu", verify=True)
    assert read_plan(bundle.folder / "edgelr" / "plan.json") == read_plan(tmp_path / "plan.json")
    reported = run(*next_command(exported.stdout))
    assert reported.exit_code == 0, reported.stderr
    assert "Measured on this machine" in reported.stdout


@pytest.mark.whole
def test_the_json_of_an_export_is_the_report_in_its_folder(
    run: Invoke, asked: list[str], tmp_path: Path
) -> None:
    done = run("export", *asked, "--keep", "0.7", "--out", "there", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (path,) = (tmp_path / "there" / "reports").glob("*.json")
    assert json.loads(done.stdout) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("identical", "worst", "said", "unsaid"),
    [
        (0, 23.8, "Parity failed", "eep more"),
        (8, 99.0, "Judge on more with --evaluation", "Parity"),
        (0, 99.0, "is undecided", "nothing"),
    ],
)
def test_what_failed_is_said_with_what_helps(
    run: Invoke,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    identical: int,
    worst: float,
    said: str,
    unsaid: str,
) -> None:
    """A graph that computes something else is not mended by more of its weights."""
    report = make_report()
    found = report.validation
    assert found is not None
    assert found.parity is not None
    assert found.gate is not None
    failed = replace(
        found,
        parity=replace(found.parity, greedy_identical=identical),
        gate=replace(found.gate, worst=worst),
    )
    monkeypatch.setattr("edgelr.pipeline.export", lambda *_: replace(report, validation=failed))
    done = run("export", *asked)
    assert done.exit_code == 3
    told = done.stderr.partition("error: ")[2]
    assert said in told
    assert unsaid not in told


# --- plan ----------------------------------------------------------------------------------------


def test_an_option_wins_over_the_file(run: Invoke, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "edgelr.yaml").write_text("profile: jetson\nkeep: 0.6\nseed: 5\n")
    done = run("plan", *asked, "-c", "edgelr.yaml", "--keep", "0.9", "--out", "mine.json", "-q")
    assert done.exit_code == 0, done.stderr
    assert 0.6 < read_plan(tmp_path / "mine.json").kept <= 0.9
    words = ["export", *asked, "--seed", "5", "--plan", "mine.json"]
    assert next_command(done.stdout) == words
    assert done.stderr == ""


# --- inspect -------------------------------------------------------------------------------------


def test_linears_are_shown_in_a_table_or_as_json(run: Invoke, asked: list[str]) -> None:
    found = json.loads(run("inspect", asked[0], "--json").stdout)
    assert [(each["name"], each["in_features"], each["out_features"]) for each in found] == [
        ("first", 48, 80),
        ("second", 80, 80),
        ("last", 80, 32),
    ]
    done = run("inspect", asked[0])
    rows = [line.split() for line in done.stdout.splitlines()]
    for each in found:
        (row,) = (row for row in rows if row[:1] == [each["name"]])
        assert row[-2:] == [each["component"], str(each["rank"])]
        assert str(each["effective_rank"]) in row


def test_linears_are_shown_for_the_share_that_is_asked_for(run: Invoke, asked: list[str]) -> None:
    few, many = (
        json.loads(run("inspect", asked[0], "--keep", keep, "--json").stdout)
        for keep in ("0.3", "0.7")
    )
    assert all(low["rank"] < high["rank"] for low, high in zip(few, many, strict=True))
