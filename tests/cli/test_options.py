"""Settings are offered as options: all of them, with their help, and read like ``edgelr.yaml``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from edgelr.cli import app
from edgelr.cli.options import with_settings
from edgelr.compress.methods import METHODS
from edgelr.core.settings import Settings, read_settings
from edgelr.core.tasks import TASKS
from edgelr.device.profile import profile_names
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.recipes import RECIPES
from tests.core.test_settings import EVERYTHING
from tests.helpers.paths import ROOT
from tests.helpers.reference import help_text

SETTINGS = {each.name: each for each in fields(Settings)}
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "scipy", "matplotlib"}

told = typer.Typer()


@told.command("all")
@with_settings(config=True)
def _all(settings: Settings) -> None:
    typer.echo(json.dumps(asdict(settings)))


@told.command("some")
@with_settings("model", "profile", "seed", profile="generic-cpu")
def _some(settings: Settings, loud: bool = False) -> None:
    typer.echo(json.dumps({**asdict(settings), "loud": loud}))


def read(*words: str) -> dict[str, Any]:
    """Return what a command is called with."""
    done = CliRunner().invoke(told, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def words_of(values: dict[str, Any]) -> list[str]:
    """Spell settings on the command line."""
    words = [str(values["model"])]
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if name == "calibration":
            words += [word for path in value for word in (option, path)]
        elif name == "forms":
            words += [option, ",".join(value)]
        elif value is True:
            words += [option]
        elif value is False:
            words += [f"--no-{name}"]
        elif name != "model":
            words += [option, str(value)]
    return words


# --- options and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_an_option_of_export_with_a_help_and_a_panel(name: str) -> None:
    made = {each.name: each for each in get_command(app).commands["export"].params}[name]
    option = SETTINGS[name].metadata["option"]
    assert option.help
    assert made.help.startswith(option.help)
    if name == "model":
        assert made.param_type_name == "argument"
    else:
        assert f"--{name.replace('_', '-')}" in made.opts
        assert made.rich_help_panel == option.panel != ""


def test_plan_takes_what_a_plan_depends_on() -> None:
    offered = {each.name for each in get_command(app).commands["plan"].params}
    missing = {name for name in SETTINGS if name not in offered}
    later = {"heal_steps", "heal_minutes", "heal_sites", "heal_adapter"}
    assert missing == {*later, "opset", "provider", "with_tests", "rivals"}


def test_the_command_line_and_a_file_make_the_same_settings(tmp_path: Path) -> None:
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in EVERYTHING.items()}
    path = tmp_path / "edgelr.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    spelled = json.loads(json.dumps(asdict(read_settings(path, {}))))
    assert read("all", "-c", str(path)) == spelled
    assert read("all", *words_of(EVERYTHING)) == spelled


def test_an_option_wins_over_the_file_even_where_it_says_what_is_usual(tmp_path: Path) -> None:
    path = tmp_path / "edgelr.yaml"
    path.write_text("model: m\nseed: 7\nprofile: generic-cpu\nkeep: 0.5\n", encoding="utf-8")
    found = read("all", "-c", str(path), "--seed", "0", "--max-drop", "0.1")
    assert (found["seed"], found["profile"]) == (0, "generic-cpu")
    assert (found["keep"], found["max_drop"]) == (None, 0.1)


def test_a_command_can_have_a_default_of_its_own() -> None:
    found = read("some", "m", "--loud")
    assert (found["profile"], found["seed"], found["loud"]) == ("generic-cpu", 0, True)
    assert read("some", "m", "--profile", "jetson")["profile"] == "jetson"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--precision", "fp16"], "precision", "float16"),
        (["--context", "64"], "context_tokens", 64),
        (["-o", "there"], "out", "there"),
        (["--forms", "dense"], "forms", ["dense"]),
        (["--no-rivals"], "rivals", False),
        (["--rivals"], "rivals", True),
    ],
)
def test_other_spellings_of_an_option(words: list[str], name: str, value: Any) -> None:
    assert read("all", "m", *words)[name] == value


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        "<fp32|fp16|int8|int8_b128|int4|int4_b",
        "Some of dense, low_rank, pivoted, tied, kronecker, with commas between.",
        "[default: jetson]",
        "[default: (the recipe's)]",
        "[default: (the profile's)]",
        "Aim (at most one)",
    ],
)
def test_help_shows_panels_choices_and_defaults(shown: str) -> None:
    text = re.sub(r"[│╭╮╰╯─\s]+", " ", help_text(("export",)))
    assert shown in text


# --- completion ----------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """Complete the last word of a command line, as bash does."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    environment = {"_EDGELR_COMPLETE": "complete_bash", **asked}
    done = CliRunner().invoke(app, [], env=environment, prog_name="edgelr")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("edgelr export m --profile ", profile_names()),
        ("edgelr export m --recipe ", RECIPES.names()),
        ("edgelr export m --method ", METHODS.names()),
        ("edgelr export m --allocator ", ALLOCATORS.names()),
        ("edgelr export m --task ", TASKS.names()),
        ("edgelr sweep m --profile ", profile_names()),
        ("edgelr profiles show ", profile_names()),
        ("edgelr export m --method sv", ["svd", "svd_llm"]),
        ("edgelr export m --forms dense,p", ["dense,pivoted"]),
        ("edgelr sweep m --precision int8,f", ["int8,fp32", "int8,fp16"]),
        ("edgelr report d --format h", ["html"]),
        ("edgelr measure d --provider c", ["cpu", "cuda"]),
        ("edgelr list ev", ["evaluators"]),
        ("edgelr export m --heal-a", ["--heal-adapter"]),
    ],
)
def test_names_and_words_are_completed(line: str, names: list[str]) -> None:
    assert sorted(completed(line)) == sorted(names)


@pytest.mark.parametrize("option", ["--profile", "--recipe", "--method", "--allocator", "--task"])
def test_completing_imports_nothing_heavy(option: str) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from edgelr.cli import app; app(prog_name='edgelr')"
    )
    asked = {"COMP_WORDS": f"edgelr export m {option} ", "COMP_CWORD": "4"}
    environment = {**os.environ, "_EDGELR_COMPLETE": "complete_bash", **asked}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split()
    assert "edgelr.cli" in done.stderr.split()
    assert not HEAVY & set(done.stderr.split())
