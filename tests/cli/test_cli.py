"""The command line as it is installed: at once, with a version, from the words of a shell."""

from __future__ import annotations

import sys
import time
from importlib.metadata import entry_points, version

import pytest

from tests.cli.conftest import Invoke, edgelr

HELP_SECONDS = 0.5


def test_help_is_there_at_once() -> None:
    seconds = []
    for _ in range(5):  # the best of them: the machine may be busy
        start = time.perf_counter()
        assert edgelr("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < HELP_SECONDS


def test_the_version_is_that_of_the_installed_package(run: Invoke) -> None:
    assert run("--version").stdout == f"edgelr {version('edgelr')}\n"


def test_without_a_command_the_commands_are_shown(run: Invoke) -> None:
    assert run().output.rstrip() == run("--help").output.rstrip()
    assert run("bench").output.rstrip() == run("bench", "--help").output.rstrip()


@pytest.mark.parametrize(("kind", "code"), [("recipes", 0), ("recipe", 2)])
def test_the_installed_script_runs_what_the_shell_gives_it(
    run: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    kind: str, code: int,
) -> None:  # fmt: skip
    (script,) = entry_points(group="console_scripts", name="edgelr")
    monkeypatch.setattr(sys, "argv", ["edgelr", "list", kind])
    with pytest.raises(SystemExit) as ended:
        script.load()()
    assert ended.value.code == code
    asked = run("list", kind)
    assert capsys.readouterr() == (asked.stdout, asked.stderr)
