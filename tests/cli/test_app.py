"""Errors as messages and exit codes, and the name that was meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from edgelr.core.quiet import is_verbose
from tests.cli.conftest import Invoke, edgelr
from tests.helpers.paths import ROOT

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


# --- what is printed -----------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [True, False])
def test_the_traceback_of_an_error_is_for_those_who_ask(run: Invoke, verbose: bool) -> None:
    done = run("measure", "/nowhere", *["--verbose"] * verbose)
    assert done.exit_code == 2
    assert ("Traceback" in done.stderr) == verbose
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not is_verbose()


# --- bugs ----------------------------------------------------------------------------------------


def test_a_bug_ends_with_1_its_traceback_and_where_to_report_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import edgelr.commands.list as it\n"
        "def broken(kind): raise LookupError('no such thing')\n"
        "it.describe = broken\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-m", "edgelr", "list", "methods"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-2] == "LookupError: no such thing"
    assert lines[-1].startswith("This is a bug of edgelr")


def test_an_error_of_a_library_is_told_in_a_line(
    run: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no weights")

    def read(kind: str) -> None:
        safe_open(tmp_path / "file", framework="np")

    monkeypatch.setattr("edgelr.commands.list.describe", read)
    done = run("list", "methods")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: safetensors failed (SafetensorError): ")
