"""Commands as users run them: in an empty folder, or in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgelr.cli import app
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import session_cache

Invoke = Callable[..., Result]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Invoke:
    """Run a command in an empty folder, with the session's cache."""
    monkeypatch.setenv("EDGELR_CACHE", str(session_cache(tmp_path_factory).root))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def edgelr(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgelr", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
