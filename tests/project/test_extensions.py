"""Extensions of another package: an allocator, a profile and a source, and no edit of edgelr.

Methods and recipes: ``tests/core/test_registry.py``. A modality with its exporter, from torch to a
bundle: ``tests/stages/test_new_modality.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.foreign_graphs import mlp
from tests.helpers.paths import ROOT

PACKAGE = '''
from dataclasses import replace
from pathlib import Path

from edgelr.planning.candidates import Choice
from edgelr.stages.source import SourceKind
from edgelr.stages.sources.onnx import GraphSource

BOARD = Path(__file__).with_name("outside-board.yaml")


def dense(options, budget_bytes):
    """Keep every linear as it is."""
    return {option.name: Choice(option.dense, "outside") for option in options}


class NamedGraph(GraphSource):
    """Reads the name of a graph from a text file."""

    def subject(self, settings, device, run):
        named = Path(settings.model).read_text().strip()
        return super().subject(replace(settings, model=named), device, run)


SOURCE = SourceKind(lambda settings: settings.model.endswith(".graph"), NamedGraph)
'''
ENTRY_POINTS = """
[edgelr.allocators]
outside = extension_of_another_package:dense
[edgelr.profiles]
outside-board = extension_of_another_package:BOARD
[edgelr.sources]
outside = extension_of_another_package:SOURCE
"""
Edgelr = Callable[..., str]


@pytest.fixture
def edgelr(tmp_path: Path) -> Edgelr:
    """Run a command where the other package is installed; return what it prints."""
    (tmp_path / "extension_of_another_package.py").write_text(PACKAGE)
    board = (ROOT / "profiles" / "generic-cpu.yaml").read_text()
    board = board.replace("generic-cpu", "outside-board")
    (tmp_path / "outside-board.yaml").write_text(board)
    info = tmp_path / "another-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (info / "METADATA").write_text("Name: another\nVersion: 1.0\n")
    cache = str(tmp_path / "cache")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "EDGELR_CACHE": cache}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "edgelr", *words]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_allocator_and_a_profile_are_listed(edgelr: Edgelr) -> None:
    assert "Keep every linear as it is." in edgelr("list", "allocators")
    assert "outside-board" in edgelr("list", "profiles")
    assert "outside-board" in edgelr("profiles", "show", "outside-board")


@pytest.mark.whole
def test_a_source_goes_through_the_same_stages(edgelr: Edgelr, tmp_path: Path) -> None:
    graph = mlp(tmp_path / "mlp.onnx")
    (tmp_path / "named.graph").write_text(f"{graph}\n")
    edgelr("plan", "named.graph", "--profile", "outside-board", "--keep", "0.9")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {site["name"] for site in plan["sites"]}
    gate = ("--max-drop", "0.9")  # inputs are random
    board = ("--profile", "outside-board", "--plan", "plan.json")
    edgelr("export", "named.graph", *board, *gate, "-o", "out")
    manifest = json.loads((tmp_path / "out" / "edgelr" / "manifest.json").read_text())
    assert manifest["profile"] == "outside-board"
