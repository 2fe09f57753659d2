"""Whether this machine is the device that a profile describes."""

from __future__ import annotations

from edgelr.device import machine
from edgelr.device.profile import DeviceProfile


def is_this_machine(profile: DeviceProfile) -> bool:
    """Tell whether what is measured here was measured on the profile's device."""
    if profile.detect.any_machine:
        return profile.provider == "cpu" or (machine.MACHINE_ROOT / "proc/driver/nvidia").exists()
    files = [machine.MACHINE_ROOT / "proc/device-tree" / name for name in ("compatible", "model")]
    identity = b"\0".join(path.read_bytes() for path in files if path.exists()).decode()
    return any(part in identity for part in profile.detect.device_tree)
