"""Does this image model still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime and pytest. conftest.py says which provider is tested, and how closely.
`stored` holds pictures at the size that the model reads, and what the original and this bundle
answered to them.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

TOGETHER = 4  # pictures whose whole outputs are stored


def run(session: ort.InferenceSession, pixels: Any) -> Any:
    """Run pixels ``(pictures, 3, side, side)``; return hidden states, or logits."""
    half = session.get_inputs()[0].type == "tensor(float16)"
    names = [item.name for item in session.get_outputs()]
    output = "last_hidden_state" if "last_hidden_state" in names else names[0]
    feeds = {"pixel_values": pixels.astype(np.float16 if half else np.float32)}
    return session.run([output], feeds)[0].astype(np.float32)


def answer(output: Any, manifest: Any) -> Any:
    """Return the unit vector of a picture ``(features,)``, or its logits ``(labels,)``."""
    if manifest["task"] != "feature-extraction":
        return output
    vector = output[0] if manifest["pooling"] == "cls" else output.mean(axis=0)
    return vector / np.linalg.norm(vector)


def difference(found: Any, wanted: Any, expected: Any) -> float:
    """Return the largest difference as a share of the largest output; NaN is infinite."""
    worst = float(np.abs(found.astype(np.float64) - wanted).max()) / expected["scale"]
    return worst if np.isfinite(worst) else float("inf")


@pytest.fixture(scope="session")
def pixels(stored: Any, manifest: Any) -> Any:
    """Prepare the pictures as the manifest says, ``(pictures, 3, side, side)``."""
    image = manifest["image"]
    values = stored["pictures"] * image["scale"] - np.array(image["mean"])
    return (values / np.array(image["std"])).transpose(0, 3, 1, 2)


@pytest.fixture(scope="session")
def alone(session: ort.InferenceSession, pixels: Any) -> list[Any]:
    """Run every picture alone."""
    return [run(session, each[None])[0] for each in pixels]


def test_the_files_are_those_that_were_exported(folder: Path, manifest: Any) -> None:
    for file in manifest["files"]:
        found = hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest()
        assert found == file["sha256"], file["path"]


def test_the_bundle_passed_its_accuracy_gate(manifest: Any) -> None:
    assert manifest["gate_passed"]


def test_outputs_are_those_of_the_export(alone: Any, stored: Any, expected: Any) -> None:
    for index, found in enumerate(alone[:TOGETHER]):
        assert difference(found, stored[f"output_{index}"], expected) <= expected["tolerance"]


def test_answers_are_those_of_the_export(
    alone: Any, manifest: Any, stored: Any, expected: Any
) -> None:
    found = np.stack([answer(output, manifest) for output in alone])
    # a vector has length 1: its scale is its own
    scale = {"scale": 1.0} if manifest["task"] == "feature-extraction" else expected
    assert difference(found, stored["answers"], scale) <= expected["tolerance"]


def test_answers_are_within_the_gate_of_the_original(
    alone: Any, manifest: Any, stored: Any, expected: Any
) -> None:
    found = np.stack([answer(output, manifest) for output in alone])
    original = stored["original_answers"]
    if manifest["task"] == "feature-extraction":
        agreement = float((found * original).sum(axis=-1).mean())
    elif expected["several_labels"]:
        agreement = float(((found > 0) == (original > 0)).mean())
    else:
        agreement = float((found.argmax(axis=-1) == original.argmax(axis=-1)).mean())
    assert agreement >= expected["limit"], f"{expected['metric']} is {agreement:.4f}"


def test_pictures_together_answer_like_pictures_alone(
    session: ort.InferenceSession, pixels: Any, alone: Any, expected: Any
) -> None:
    for found, wanted in zip(run(session, pixels[:TOGETHER]), alone, strict=False):
        assert difference(found, wanted, expected) <= expected["tolerance"]
