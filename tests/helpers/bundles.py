"""Run the tests that travel with bundles as their users do: without edgelr, and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

FORBIDDEN = ("edgelr", "onnx", "onnx_ir", "optimum", "pydantic", "scipy", "torch", "transformers")
RUN = f"""
import sys
sys.modules.update(dict.fromkeys({FORBIDDEN}))  # what is None there cannot be imported
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""

Outcomes = dict[str, dict[str, bool]]


def run_bundle_tests(folders: Sequence[Path]) -> Outcomes:
    """Run the tests of all bundles in one process; tell which passed, by bundle and test."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results.xml"
        options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--tb=line"]
        tests = [str(folder / "tests") for folder in folders]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *options, f"--junitxml={results}", *tests],
            cwd=os.path.commonpath(folders),
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        root = ElementTree.parse(results).getroot()
    found: Outcomes = {str(folder): {} for folder in folders}
    names = {folder.name: str(folder) for folder in folders}
    for case in root.iter("testcase"):
        parts = case.get("classname", "").split(".")
        folder = names[parts[-3]] if len(parts) > 2 else str(folders[0])
        found[folder][case.get("name", "")] = not len(case)
    return found
