"""Memory and cores of this process, as the kernel counts them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgelr.core.errors import EnvironmentProblem

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Anonymous and file-backed resident memory, and the peak of both since the start."""

    rss_anon_bytes: int
    rss_file_bytes: int
    peak_bytes: int

    @property
    def resident_bytes(self) -> int:
        return self.rss_anon_bytes + self.rss_file_bytes


def read_memory() -> ProcessMemory:
    """Read ``/proc/self/status``.

    Raises:
        EnvironmentProblem: this system has no ``/proc``.
    """
    kib = _status()
    return ProcessMemory(kib["RssAnon:"] << 10, kib["RssFile:"] << 10, kib["VmHWM:"] << 10)


def read_gpu_memory() -> int | None:
    """Ask the driver for the bytes that this process has on the GPUs; None where it does not tell.

    A board whose GPU shares the memory of the processor has no such counter.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    rows = (line.replace(" ", "").split(",") for line in answer.stdout.splitlines())
    own = [row[1] for row in rows if row[0] == str(os.getpid())]
    return sum(int(mib) << 20 for mib in own) if own and all(map(str.isdigit, own)) else None


def usable_cores() -> int:
    """Count the cores that this process may use; containers see fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def limit_data(more_bytes: int) -> None:
    """Let this process have that much more private memory (RLIMIT_DATA), and no more.

    Raises:
        EnvironmentProblem: this system has no ``/proc``.
    """
    now = _status()["VmData:"] << 10
    bound = now + max(0, more_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _status() -> dict[str, int]:
    """Sizes of this process in KiB, by the kernel's names."""
    if not _STATUS.exists():
        raise EnvironmentProblem(
            f"There is no {_STATUS} here. Expected Linux, which counts a process's memory there. "
            f"Measure on Linux, or on the device itself."
        )
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
