"""A board: the wheel, the few packages that it asks for, ONNX Runtime, and a finished bundle.

Neither torch nor onnx is there. What the tutorial and the README tell a board to run does run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgelr.cli import app
from tests.conftest import write_tiny
from tests.helpers.bare import install_bare, run_bare
from tests.helpers.foreign_graphs import mlp
from tests.helpers.paths import ROOT

pytest.importorskip("hatchling", reason="hatchling builds the wheel: see the extra `dev`")
pytestmark = pytest.mark.whole

QUICK = ["--profile", "generic-cpu"]
TEXTS = [
    "--keep",
    "0.7",
    "--recipe",
    "svd-llm",
    "--calibration-tokens",
    "512",
    "--calibration-length",
    "32",
]
FEW = """
from edgelr.commands import detect
detect.SIZES, detect.TOKENS, detect.MOST_PAIRS = (64, 128), (1, 16), 2
from edgelr.cli import main
main()
"""
ABSENT = ("torch", "transformers", "onnx", "onnx_ir", "optimum", "scipy", "matplotlib")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles of an encoder and one of a graph, made where torch is."""
    folder = tmp_path_factory.mktemp("laptop")
    model, graph = write_tiny(folder / "model", "bert"), mlp(folder / "net.onnx")
    for name, words in {
        "first": [str(model), *QUICK, *TEXTS],
        "int8": [str(model), *QUICK, *TEXTS, "--precision", "int8"],
        "graph": [str(graph), *QUICK, "--keep", "1"],
    }.items():
        words = ["export", *words, "--out", str(folder / name)]
        done = CliRunner().invoke(app, words, env={"EDGELR_CACHE": str(folder / "cache")})
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Run:
    """Run the command of a board, in a folder to which the bundles were copied."""
    root = tmp_path_factory.mktemp("board")
    home = root / "home"
    for name in ("first", "int8", "graph"):
        shutil.copytree(made / name, home / name)
    python = install_bare(root, "onnxruntime")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_bare(python, home, *words)

    for package in ABSENT:
        assert run("-c", f"import {package}").returncode != 0, package
    return run


def commands_of_the_tutorial() -> list[list[str]]:
    """The commands of its chapter about the board that are edgelr's."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    (chapter,) = re.findall(r"\n## 7\. On the board\n(.*?)\n## ", text, flags=re.DOTALL)
    return [line.split()[1:] for line in re.findall(r"^edgelr .*$", chapter, flags=re.MULTILINE)]


def test_the_commands_of_the_tutorial_run_on_a_board(board: Run) -> None:
    commands = commands_of_the_tutorial()
    assert {words[0] for words in commands} == {"validate", "measure", "report", "diff"}
    for words in commands:
        done = board("-m", "edgelr", *words)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout, words


@pytest.mark.parametrize("bundle", ["first", "int8", "graph"])
def test_a_bundle_is_validated_on_the_answers_that_came_with_it(board: Run, bundle: str) -> None:
    done = board("-m", "edgelr", "validate", bundle, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "its answers at the export" in found["parity"]["against"]
    assert found["parity"]["max_abs_error"] <= found["parity"]["max_abs_error_limit"]
    assert found["gate"]["value"] == found["metrics"][0]["value"]
    assert "at the export" in found["text"]


def test_a_board_measures_its_kernels(board: Run, tmp_path: Path) -> None:
    out = tmp_path / "here.yaml"
    done = board("-c", FEW, "profiles", "detect", "--out", str(out))
    assert done.returncode == 0, done.stderr
    kernels = yaml.safe_load(out.read_text())["kernels"]
    assert {row[0] for row in kernels["products"]} == {"float32", "int8", "int4"}
    assert all(row[4] > 0 for row in kernels["products"])


def test_what_needs_the_original_says_what_a_board_can_do(board: Run) -> None:
    done = board("-m", "edgelr", "validate", "first", "--max-drop", "5%")
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert "leave both away, to compare with the answers in the bundle" in done.stderr
