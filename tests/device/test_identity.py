"""Whether a machine is a profile's device: figures of another are never called measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.device.identity import is_this_machine
from edgelr.device.profile import load_profile, profile_names


def test_only_the_generic_profiles_describe_any_machine(machine: Path) -> None:
    matching = [name for name in profile_names() if is_this_machine(load_profile(name))]
    assert matching == ["generic-cpu"]
    (machine / "proc/driver/nvidia").mkdir(parents=True)
    assert is_this_machine(load_profile("generic-cuda"))


@pytest.mark.parametrize(
    ("compatible", "name"),
    [
        ("nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0", "jetson"),
        ("nvidia,p3768-0000+p3767-0004\0nvidia,tegra234\0", "orin-nano-4gb"),
        ("nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0", "agx-orin-64gb"),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", "raspberry-pi-5-8gb"),
    ],
)
def test_a_board_is_recognised_by_its_device_tree(
    machine: Path, compatible: str, name: str
) -> None:
    (machine / "proc/device-tree/compatible").write_bytes(compatible.encode())
    boards = [each for each in profile_names() if load_profile(each).detect.device_tree]
    assert [each for each in boards if is_this_machine(load_profile(each))] == [name]
