"""``edgelr list`` and ``edgelr profiles``: what there is to choose from, and with what numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from edgelr.cli.catalogue import KINDS
from edgelr.commands import detect
from edgelr.compress.methods import METHODS
from edgelr.core.tasks import TASKS
from edgelr.device.profile import DeviceProfile, load_profile, profile_names, profile_path
from edgelr.model.exporter import EXPORTERS
from edgelr.planning.recipes import RECIPES
from tests.cli.conftest import Invoke

# --- list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", METHODS.names()),
        ("recipes", RECIPES.names()),
        ("exporters", EXPORTERS.names()),
        ("profiles", profile_names()),
        ("allocators", ["lagrangian", "uniform", "welore"]),
        ("evaluators", []),
        ("tasks", TASKS.names()),
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


def test_the_help_names_the_kinds_that_there_are(run: Invoke) -> None:
    assert run("list", "nothing").stderr.endswith(f"Known: {', '.join(KINDS)}.\n")


def test_profiles_are_listed_in_two_ways(run: Invoke) -> None:
    done = run("profiles", "list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == profile_names()
    assert done.stdout == run("list", "profiles").stdout


# --- profiles show -------------------------------------------------------------------------------


def test_a_profile_is_shown_with_its_sources(run: Invoke) -> None:
    assert "source: " in run("profiles", "show", "jetson").stdout
    shown = json.loads(run("profiles", "show", "jetson", "--json").stdout)
    assert shown["memory"]["visible"]["unit"] == "MiB"


def test_a_profile_of_ones_own_is_shown_as_it_was_written(run: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"# ours\n{profile_path('jetson').read_text()}", encoding="utf-8")
    assert run("profiles", "show", path).stdout == path.read_text().rstrip() + "\n"
    shown = run("profiles", "show", path, "--json").stdout
    assert DeviceProfile.model_validate_json(shown) == load_profile("jetson")


def test_a_profile_with_a_mistake_is_not_shown(run: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(profile_path("jetson").read_text().replace("unit: MiB", "unit: MB", 1))
    done = run("profiles", "show", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "mine.yaml" in done.stderr
    assert "MB" in done.stderr


# --- profiles detect -----------------------------------------------------------------------------


@pytest.mark.whole
def test_a_detected_profile_comes_with_the_command_that_uses_it(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "SIZES", (64, 128))  # few, small products
    monkeypatch.setattr(detect, "TOKENS", (1, 16))
    monkeypatch.setattr(detect, "MOST_PAIRS", 4)
    done = run("profiles", "detect", "--out", "my board.yaml", "--quiet")
    assert done.exit_code == 0, done.output
    figures, told = done.stdout.splitlines()
    device = load_profile(str(tmp_path / "my board.yaml"))
    assert figures.startswith(f"{device.visible_bytes / 2**20:,.0f} MiB of memory, ")
    assert figures.endswith(" GFLOPS in float32.")
    command = shlex.split(told.partition("Next: ")[2])
    assert command == ["edgelr", "export", "MODEL", "--profile", "my board.yaml"]
