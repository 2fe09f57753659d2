"""Memory that a profile asks for: of the machine, its container, or its GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core.errors import EnvironmentProblem
from edgelr.device.machine import with_detected_memory
from edgelr.device.profile import load_profile

MIB = 2**20


def with_gpus(machine: Path, answer: str) -> None:
    """Install a driver that tells of the memory of its GPUs."""
    tool = machine / "bin/nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    tool.chmod(0o755)


@pytest.mark.parametrize(
    ("limit", "mib"), [("max", 16384), ("1073741824", 1024), ("1" * 15, 16384)]
)
def test_detected_memory_is_the_smaller_of_machine_and_container(
    machine: Path, limit: str, mib: int
) -> None:
    (machine / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    assert load_profile("generic-cpu").visible_bytes == mib * MIB


@pytest.mark.usefixtures("machine")
def test_a_detected_number_says_where_it_was_read() -> None:
    assert load_profile("generic-cpu").memory.visible.source.startswith("/proc/meminfo")


def test_the_smallest_gpu_is_asked_by_whoever_computes_on_one(machine: Path) -> None:
    with_gpus(machine, r"24576\n8188\n")
    found = load_profile("generic-cuda")
    assert found.visible_bytes == 8188 * MIB
    assert found.memory.visible.source.startswith("nvidia-smi")
    assert load_profile("generic-cpu").visible_bytes == 16384 * MIB


def test_a_driver_that_finds_no_gpu_leaves_the_memory_of_the_host(machine: Path) -> None:
    with_gpus(machine, r"No devices were found\n")
    assert load_profile("generic-cuda").visible_bytes == 16384 * MIB


def test_a_machine_that_cannot_tell_its_memory_says_what_to_write(machine: Path) -> None:
    (machine / "proc/meminfo").unlink()
    with pytest.raises(EnvironmentProblem, match=r"write memory\.visible\.value"):
        load_profile("generic-cpu")


@pytest.mark.parametrize("fields", [None, [], {"memory": 3}, {"memory": {"visible": {"value": 7}}}])
def test_what_asks_for_nothing_stays_as_it_is(machine: Path, fields: object) -> None:
    (machine / "proc/meminfo").unlink()
    assert with_detected_memory(fields) is fields
