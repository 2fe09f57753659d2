"""Memory and cores of this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgelr.core.errors import EnvironmentProblem
from edgelr.runtime import memory
from edgelr.runtime.worker_client import Worker
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

LIMITED = """
import numpy as np
from edgelr.runtime.memory import limit_data

limit_data(64 << 20)
np.ones(32 << 17)  # 32 MiB
try:
    np.ones(128 << 17)
except MemoryError:
    print("refused")
"""

WRITTEN = """
import numpy as np
from edgelr.runtime.memory import read_memory

before = read_memory()
block = np.ones(32 << 17)  # 32 MiB of float64
after = read_memory()
assert after.rss_anon_bytes - before.rss_anon_bytes > 0.9 * block.nbytes, (before, after)
assert after.peak_bytes >= after.resident_bytes >= after.rss_anon_bytes, after
"""


def test_memory_that_is_written_is_counted() -> None:
    """In a process of its own: here, earlier tests' memory may be given back in between."""
    done = subprocess.run(
        [sys.executable, "-c", WRITTEN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_private_memory_is_limited_to_what_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"


def test_a_system_that_does_not_count_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    with pytest.raises(EnvironmentProblem, match="Expected Linux"):
        memory.read_memory()


def test_the_cores_are_those_of_this_process() -> None:
    assert memory.usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("said", "found"), [("{pid}, 851", 851 << 20), ("{pid}, [N/A]", None), ("1, 851", None)]
)
def test_the_driver_tells_what_a_worker_has_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: int | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '3, 77'\necho \"{said.format(pid='$PPID')}\"\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with Worker() as worker:
        assert worker.gpu_memory() == found


def test_without_a_driver_nobody_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Worker() as worker:
        assert worker.gpu_memory() is None
