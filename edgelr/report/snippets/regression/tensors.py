"""Does this graph still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime and pytest. conftest.py says which provider is tested, and how closely.
`stored` holds values of the outputs of the original and of this bundle, spread over each output;
the inputs are in edgelr/inputs.npz.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

Values = dict[str, Any]
VALUES = 65536  # of an output are stored at most: every n-th


@pytest.fixture(scope="session")
def outputs(session: ort.InferenceSession, folder: Path, stored: Any) -> Values:
    """Run the inputs; return the same values of the outputs as are stored, by their names."""
    names = [item.name for item in session.get_outputs()]
    found = {}
    with np.load(folder / "edgelr" / "inputs.npz", allow_pickle=False) as samples:
        inputs = dict(samples)
    for index in range(len(next(iter(inputs.values())))):
        wanted = [name for name in names if f"output_{index}.{name}" in stored]
        if wanted:
            feeds = {name: array[index, ...] for name, array in inputs.items()}
            for name, values in zip(wanted, session.run(wanted, feeds), strict=True):
                step = -(-values.size // VALUES)
                found[f"{index}.{name}"] = values.reshape(-1)[::step].astype(np.float64)
    return found


def test_outputs_are_those_of_the_export(outputs: Values, stored: Any, expected: Any) -> None:
    assert outputs
    for name, found in outputs.items():
        wanted = stored[f"output_{name}"]
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted), name)
        finite = np.isfinite(wanted)
        worst = float(np.abs(found[finite] - wanted[finite]).max(initial=0.0))
        assert worst <= expected["tolerance"] * expected["scale"], name


def test_outputs_are_within_the_gate_of_the_original(
    outputs: Values, stored: Any, expected: Any
) -> None:
    cosines = []
    for name, found in outputs.items():
        original = stored[f"original_{name}"].astype(np.float64)
        finite = np.isfinite(original)
        pair = np.where(finite, found, 0), np.where(finite, original, 0)
        lengths = float(np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]))
        cosines.append(float(pair[0] @ pair[1]) / max(lengths, 1e-30))
    assert np.mean(cosines) >= expected["limit"], f"the mean cosine is {np.mean(cosines):.4f}"
