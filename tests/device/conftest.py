"""A machine that is made up, for profiles that ask the one that loads them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a machine up: 16 GiB of memory, no NVIDIA driver, no device tree, no cgroup limit."""
    root = tmp_path / "machine"
    for folder in ("bin", "proc/device-tree", "sys/fs/cgroup"):
        (root / folder).mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree:  1 kB\n")
    monkeypatch.setattr("edgelr.device.machine.MACHINE_ROOT", root)
    monkeypatch.setenv("PATH", str(root / "bin"))
    return root
