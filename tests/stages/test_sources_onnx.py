"""An .onnx file as source: every command works with it, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.whole


WITHOUT_TORCH = """
import sys
from edgelr.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "transformers", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_commands_import_no_torch(graph: Path, graph_inputs: Path, tmp_path: Path) -> None:
    def edgelr(*arguments: str) -> str:
        environment = os.environ | {"EDGELR_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = (str(graph), "--profile", "generic-cpu", "--calibration", str(graph_inputs))
    assert "second" in edgelr("inspect", str(graph))
    assert "plan.json" in edgelr("plan", *options, "--keep", "0.7")
    shown = edgelr("export", *options, "--plan", "plan.json", "--max-drop", "0.5", "--out", "out")
    assert "Parity passed" in shown
    assert "mean_cosine" in edgelr(
        "validate", "out", "--against", str(graph), "--data", str(graph_inputs)
    )
    assert "forward" in edgelr("measure", "out", "--repetitions", "3")
    assert "mean_cosine" in edgelr("report", "out")
    assert "MatMul" in edgelr("measure", "out", "--operators", "--repetitions", "3")
