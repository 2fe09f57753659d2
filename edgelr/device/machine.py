"""The machine that edgelr runs on: how much memory it has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edgelr.core.errors import EnvironmentProblem
from edgelr.core.vocabulary import MIB

MACHINE_ROOT = Path("/")  # where proc and sys are found; tests point it at a made-up machine


def with_detected_memory(fields: Any) -> Any:
    """Replace a profile's ``memory.visible.value: detect`` by what this machine has.

    Raises:
        EnvironmentProblem: this machine cannot tell.
    """
    match fields:
        case {"memory": {"visible": {"value": "detect"} as visible} as memory}:
            mib, source = (_gpu_memory_mib() if _has_own_memory(fields) else None), "nvidia-smi"
            if mib is None:
                mib, source = _host_memory_mib()
            found = {"value": mib, "source": f"{source}, on the machine that loaded this profile"}
            return {**fields, "memory": {**memory, "visible": {**visible, **found}}}
    return fields


def _has_own_memory(fields: Any) -> bool:
    match fields:
        case {"memory": {"shared_with_gpu": False}, "software": {"provider": "cuda"}}:
            return True
    return False


def _gpu_memory_mib() -> float | None:
    """Ask the driver for the smallest GPU's memory; None without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return min((float(line) for line in answer.stdout.split() if line.isdigit()), default=None)


def _host_memory_mib() -> tuple[float, str]:
    """Read MemTotal, or this container's cgroup v2 limit where that is smaller."""
    try:
        text = (MACHINE_ROOT / "proc/meminfo").read_text()
    except OSError as error:
        raise EnvironmentProblem(
            "This machine has no /proc/meminfo, so its memory cannot be detected. "
            "Copy the profile to a .yaml file and write memory.visible.value there, in MiB."
        ) from error
    total_bytes = int(re.findall(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)[0]) * 1024
    limit = MACHINE_ROOT / "sys/fs/cgroup/memory.max"
    limit_text = limit.read_text().strip() if limit.exists() else "max"
    if limit_text.isdigit() and int(limit_text) < total_bytes:
        return int(limit_text) / MIB, "cgroup memory.max"
    return total_bytes / MIB, "/proc/meminfo"
