"""What the tests of this bundle share: its files, its session, and how closely they look.

EDGELR_PROVIDER=CUDAExecutionProvider   another execution provider; auto: onnxruntime's first
EDGELR_TOLERANCE=0.05                   share of the largest output by which answers may differ

On the CPU, and on the kind of processor that the bundle was exported on, answers may differ by the
`tolerance` of expected.json: by rounding errors as they were measured at the export. Elsewhere,
where products are rounded otherwise, by `tolerance_elsewhere`.
"""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

FOLDER = Path(__file__).resolve().parents[1]
CPU = "CPUExecutionProvider"


def read(name: str) -> Any:
    """Read a JSON file of the bundle."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def provider() -> str:
    """Name the execution provider that the tests run on."""
    asked = os.environ.get("EDGELR_PROVIDER", CPU)
    return ort.get_available_providers()[0] if asked == "auto" else asked


def load(name: str) -> ort.InferenceSession:
    """Load a graph; a session that falls back to another provider is no test of this one."""
    providers = list(dict.fromkeys((provider(), CPU)))
    found = ort.InferenceSession(str(FOLDER / name), providers=providers)
    assert found.get_providers()[0] == provider(), found.get_providers()
    return found


@pytest.fixture(scope="session")
def folder() -> Path:
    """Return the folder of the bundle."""
    return FOLDER


@pytest.fixture(scope="session")
def manifest() -> Any:
    """Read what the bundle is."""
    return read("edgelr/manifest.json")


@pytest.fixture(scope="session")
def config() -> Any:
    """Read the configuration of the model; a graph that came as a file has none."""
    return read("config.json") if (FOLDER / "config.json").exists() else {}


@pytest.fixture(scope="session")
def expected() -> Any:
    """Read what was found at the export, and how far from it is too far."""
    found = read("tests/expected.json")
    if provider() != CPU or platform.machine() != found["machine"]:
        found |= {"tolerance": found["tolerance_elsewhere"], "limit": found["limit_elsewhere"]}
    found["tolerance"] = float(os.environ.get("EDGELR_TOLERANCE", found["tolerance"]))
    return found


@pytest.fixture(scope="session")
def stored() -> dict[str, Any]:
    """Read the inputs, and what the original and the bundle answered to them."""
    with np.load(FOLDER / "tests" / "references.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def session(manifest: Any) -> ort.InferenceSession:
    """Load the graph; beside an encoder, that of the decoder."""
    return load(manifest["model_file"])


@pytest.fixture(scope="session")
def encoder(manifest: Any) -> ort.InferenceSession:
    """Load the graph of an encoder that has one of its own."""
    return load(manifest["encoder_file"])


@pytest.fixture(scope="session")
def difference(expected: Any) -> Callable[..., float]:
    """Return a function of two arrays: their largest difference, as a share of the largest output.

    A third argument is taken for the largest output; what is not a number is infinitely far away.
    """

    def found(first: Any, second: Any, scale: float = expected["scale"]) -> float:
        worst = float(np.abs(first.astype(np.float64) - second).max()) / scale
        return worst if np.isfinite(worst) else float("inf")

    return found
