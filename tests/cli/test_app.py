from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgelr.cli import app
from edgelr.compress.methods import METHODS
from edgelr.core.quiet import is_verbose
from edgelr.core.run import Run
from edgelr.device.profile import profile_names
from edgelr.model.exporter import EXPORTERS
from edgelr.model.loaded import LoadedModel
from edgelr.planning.files import read_plan
from edgelr.planning.recipes import RECIPES
from edgelr.stages.transformers.subject import dense_export
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import Recorder, session_cache

HELP_SECONDS = 0.5
QUICK = ["--profile", "generic-cpu", "--calibration-tokens", "512", "--calibration-length", "32"]

Invoke = Callable[..., Result]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Invoke:
    """Run a command in an empty folder, with the session's cache."""
    monkeypatch.setenv("EDGELR_CACHE", str(session_cache(tmp_path_factory).root))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture(scope="module")
def dense_folder(tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_export(
        tiny_decoder, Run(session_cache(tmp_path_factory), Recorder())
    ).bundle.folder


def edgelr(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgelr", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_is_there_at_once() -> None:
    seconds = []
    for _ in range(5):  # the best of them: the machine may be busy
        start = time.perf_counter()
        assert edgelr("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < HELP_SECONDS


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["list", "methods"], 0),
        (["frobnicate"], 2),
        (["export"], 2),
        (["export", "model", "--frobnicate"], 2),
        (["export", "model", "--keep", "much"], 2),
        (["report"], 2),
        (["report", "/nowhere"], 2),
        (["measure", "/nowhere"], 2),
        (["profiles", "show", "/nowhere.yaml"], 2),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_message(words: list[str], code: int) -> None:
    done = edgelr(*words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert (done.stderr != "") == (code != 0)
    assert (done.stdout != "") == (code == 0)


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
        ["--task", "feature-extraction"],
    ],
)
def test_an_option_out_of_range_ends_with_2(
    run: Invoke, tiny_decoder_folder: Path, options: list[str]
) -> None:
    done = run("export", tiny_decoder_folder, "--profile", "generic-cpu", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")


def test_an_interrupt_ends_with_130(run: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgelr.commands.list.describe", interrupt)
    done = run("list", "methods")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr.startswith("Interrupted.")


def test_an_interrupt_that_a_library_made_its_own_error_of_is_still_one(
    run: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(kind: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr("edgelr.commands.list.describe", interrupt)
    # What a shell runs in the background ignores interrupts, and so would this test.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("list", "methods").exit_code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["exprt"], "export"),
        (["export", "MODEL", "--kep", "0.5"], "--keep"),
        (["export", "MODEL", "--profile", "jetsn"], "jetson"),
        (["export", "MODEL", "--recipe", "svdllm"], "svd-llm"),
        (["export", "MODEL", "--method", "fishr"], "fisher"),
        (["export", "MODEL", "--allocator", "lagrangean"], "lagrangian"),
        (["list", "profile"], "profiles"),
        (["export", "MODEL", "--precision", "int3"], "int4"),
        (["export", "MODEL", "--grouping", "imput"], "input"),
        (["export", "MODEL", "--forms", "dense,pivot"], "pivoted"),
        (["measure", "DIR", "--provider", "cudo"], "cuda"),
        (["report", "DIR", "--format", "htm"], "html"),
        (["profiles", "show", "generic-gpu"], "generic-cpu"),
    ],
)
def test_an_unknown_name_gets_the_one_that_was_meant(
    run: Invoke, tiny_decoder_folder: Path, words: list[str], meant: str
) -> None:
    done = run(*(str(tiny_decoder_folder) if word == "MODEL" else word for word in words))
    assert done.exit_code == 2
    assert "Did you mean" in done.stderr or "Possible options" in done.stderr
    assert meant in done.stderr


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", METHODS.names()),
        ("recipes", RECIPES.names()),
        ("exporters", EXPORTERS.names()),
        ("profiles", profile_names()),
        ("allocators", ["lagrangian", "uniform", "welore"]),
        ("evaluators", []),
    ],
)
def test_every_choice_is_listed_with_a_word_about_it(
    run: Invoke, kind: str, names: list[str]
) -> None:
    done = run("list", kind)
    assert done.exit_code == 0
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines
    assert {name for name, _ in lines} >= set(names)


def test_profiles_are_listed_in_two_ways(run: Invoke) -> None:
    done = run("profiles", "list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == profile_names()
    assert done.stdout == run("list", "profiles").stdout


def test_a_profile_is_shown_with_its_sources(run: Invoke) -> None:
    assert "source: " in run("profiles", "show", "jetson").stdout
    shown = json.loads(run("profiles", "show", "jetson", "--json").stdout)
    assert shown["memory"]["visible"]["unit"] == "MiB"


# --- what is printed -----------------------------------------------------------------------------


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


def test_an_option_wins_over_the_file(
    run: Invoke, tiny_decoder_folder: Path, tmp_path: Path
) -> None:
    run("export", tiny_decoder_folder, *QUICK, "--keep", "0.6", "--dry-run", "-q")
    assert run("plan", "-c", "edgelr.yaml", "--keep", "0.9").exit_code == 0
    assert 0.6 < read_plan(tmp_path / "plan.json").kept <= 0.9


@pytest.mark.parametrize("verbose", [True, False])
def test_the_traceback_of_an_error_is_for_those_who_ask(run: Invoke, verbose: bool) -> None:
    done = run("measure", "/nowhere", *["--verbose"] * verbose)
    assert done.exit_code == 2
    assert ("Traceback" in done.stderr) == verbose
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not is_verbose()


def test_a_verbose_command_tells_the_seconds_of_its_stages(run: Invoke, dense_folder: Path) -> None:
    words = ["measure", dense_folder, "--tokens", "16", "--repetitions", "3", "--json", "-v"]
    done = run(*words)
    assert json.loads(done.stdout)
    assert re.search(r"^ +\d+\.\d s  measure prefill 16: \d+\.\d s$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("command", ["inspect", "measure", "validate"])
def test_json_is_all_that_standard_output_gets(
    run: Invoke, command: str, tiny_decoder_folder: Path, dense_folder: Path
) -> None:
    words = {
        "inspect": ["inspect", tiny_decoder_folder, "--json"],
        "measure": ["measure", dense_folder, "--tokens", "16", "--repetitions", "3", "--json"],
        "validate": ["validate", dense_folder, "--against", dense_folder, "--json"],
    }[command]
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)
