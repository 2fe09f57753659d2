"""What a command says where a package is missing: one line with what installs it, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.foreign_graphs import mlp
from tests.helpers.paths import ROOT

HIDE = """
import os, sys

class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in os.environ["HIDDEN"].split(",")
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)

sys.meta_path[:] = [Without(each) for each in sys.meta_path]
"""


def without(package: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in processes that cannot import a package."""
    (folder / "sitecustomize.py").write_text(HIDE)
    found = os.pathsep.join([str(folder), str(ROOT)])
    environment = os.environ | {
        "PYTHONPATH": found,
        "HIDDEN": package,
        "EDGELR_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "edgelr", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.whole
@pytest.mark.parametrize("package", ["torch", "transformers", "onnx_ir", "onnxruntime"])
def test_an_export_without_a_package_names_the_command_that_installs_it(
    tmp_path: Path, tiny_decoder_folder: Path, package: str
) -> None:
    quick = ["--profile", "generic-cpu", "--calibration-tokens", "512"]
    done = without(package, tmp_path, "export", str(tiny_decoder_folder), *quick)
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (each for each in done.stderr.splitlines() if each.startswith("error: "))
    assert f"The package {package} is not installed. Install it: pip install" in line
    assert "'edgelr[cpu]'" in line


@pytest.mark.whole
@pytest.mark.parametrize("words", [["measure", "out"], ["export", "net.onnx"]])
def test_a_graph_without_a_runtime_names_the_command_that_installs_one(
    tmp_path: Path, words: list[str]
) -> None:
    mlp(tmp_path / "net.onnx")
    quick = ["--profile", "generic-cpu", "--keep", "1"]
    if words[0] == "measure":
        made = without("nothing", tmp_path, "export", "net.onnx", *quick, "--out", "out")
        assert made.returncode == 0, made.stderr
    done = without("onnxruntime", tmp_path, *words)
    assert done.returncode == 6, done.stderr
    assert "pip install onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_list_needs_nothing_but_the_base(tmp_path: Path) -> None:
    hidden = "torch,transformers,onnx,onnx_ir,onnxruntime,optimum,scipy,matplotlib"
    for kind in ("profiles", "recipes", "tasks"):
        done = without(hidden, tmp_path, "list", kind)
        assert (done.returncode, done.stderr) == (0, "")


CATCH = """
import sys, edgelr
try:
    edgelr.inspect(sys.argv[1])
except edgelr.EdgelrError as error:
    print(error.exit_code, error)
"""


@pytest.mark.whole
def test_the_python_api_raises_what_the_command_tells(
    tmp_path: Path, tiny_decoder_folder: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    found = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": found, "HIDDEN": "transformers"}
    command = [sys.executable, "-c", CATCH, str(tiny_decoder_folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("6 The package transformers is not installed. Install it: pip")
