"""What commands share: names of folders, the command in reports, JSON, the cache, and progress."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgelr.cli.common import command_line, listener_of, print_json, run_of, stem_of
from edgelr.cli.timed import TimedListener
from edgelr.core.listener import Silent
from edgelr.core.measurement import PhaseLatency


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"),
        ("Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b"),
        ("weights/SmolLM2.Q4_1.gguf", "smollm2.q4_1"),
        ("models/My Net.onnx", "my net"),
        ("models/minilm/", "minilm"),
        ("package.nets:make_net", "make_net"),
        (".", "model"),
    ],
)
def test_a_folder_is_named_after_the_model(model: str, name: str) -> None:
    assert stem_of(model) == name


def test_a_report_shows_a_command_that_a_shell_reads_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["export", "My net.onnx", "--data", "it's $HOME"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/edgelr", *words])
    assert shlex.split(command_line()) == ["edgelr", *words]
    assert run_of(Silent()).command == command_line()


@dataclass
class Nested:
    phases: tuple[PhaseLatency, ...]
    path: Path


def test_values_are_printed_as_json_with_what_is_inside(capsys: pytest.CaptureFixture[str]) -> None:
    phase = PhaseLatency("decode", 1, 1, 512, 9, 24.5, 31.5, 32.5, 40.0)
    for value in (Nested((phase,), Path("a")), [phase]):
        print_json(value)
        found = json.loads(capsys.readouterr().out)
        (inside,) = found if isinstance(found, list) else found["phases"]
        assert (inside["phase"], inside["context_tokens"], inside["p50_ms"]) == (
            "decode",
            512,
            24.5,
        )


@pytest.mark.parametrize(("resume", "made"), [(True, ["first"]), (False, ["first", "second"])])
def test_without_resume_a_finished_stage_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, made: list[str]
) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(tmp_path))
    asked = []

    def stage(name: str, reuse: bool) -> str:
        def write(folder: Path) -> None:
            asked.append(name)
            (folder / "result").write_text(name)

        folder = run_of(Silent(), reuse, seed=3).stage("stage", ("same",), write)
        assert folder.parent == tmp_path
        return (folder / "result").read_text()

    assert stage("first", True) == "first"
    assert stage("second", resume) == made[-1]
    assert asked == made


@pytest.mark.parametrize(
    ("quiet", "verbose", "timed", "words"),
    [
        (True, False, False, 0),
        (False, False, False, 2),
        (False, True, True, 3),  # how long it took, too
        (True, True, True, 3),
    ],
)
def test_progress_goes_to_standard_error_unless_it_is_to_be_quiet(
    capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, timed: bool, words: int
) -> None:
    with listener_of(quiet, verbose) as listener:
        assert isinstance(listener, TimedListener) == timed
        listener.note("a note")
        listener.progress("a stage", 1, 1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == words
