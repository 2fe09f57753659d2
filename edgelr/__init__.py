"""edgelr: smaller, faster ONNX models for one edge device, with proof.

Nothing heavy is imported before a function is called: see ``edgelr.api``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgelr.api import export, inspect, measure, plan, sweep, validate
    from edgelr.core.errors import EdgelrError
    from edgelr.core.settings import Settings
    from edgelr.device.profile import load_profile
    from edgelr.runtime.open_bundle import Bundle

_MODULES = {
    "export": "edgelr.api",
    "inspect": "edgelr.api",
    "measure": "edgelr.api",
    "plan": "edgelr.api",
    "sweep": "edgelr.api",
    "validate": "edgelr.api",
    "Bundle": "edgelr.runtime.open_bundle",
    "EdgelrError": "edgelr.core.errors",
    "Settings": "edgelr.core.settings",
    "load_profile": "edgelr.device.profile",
}

__all__ = [
    "Bundle",
    "EdgelrError",
    "Settings",
    "__version__",
    "export",
    "inspect",
    "load_profile",
    "measure",
    "plan",
    "sweep",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for by name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgelr' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
