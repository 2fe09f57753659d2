"""Does this image model still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime and pytest. conftest.py says which provider is tested, and how closely.
`stored` holds pictures at the size that the model reads, and what the original and this bundle
answered to them.
"""

from collections.abc import Callable
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


def test_outputs_are_those_of_the_export(
    alone: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    for index, found in enumerate(alone[:TOGETHER]):
        assert difference(found, stored[f"output_{index}"]) <= expected["tolerance"]


def test_answers_are_those_of_the_export(
    alone: Any, manifest: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    found = np.stack([answer(output, manifest) for output in alone])
    # a vector has length 1: its scale is its own
    scale = 1.0 if manifest["task"] == "feature-extraction" else expected["scale"]
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
    session: ort.InferenceSession,
    pixels: Any,
    alone: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    for found, wanted in zip(run(session, pixels[:TOGETHER]), alone, strict=False):
        assert difference(found, wanted) <= expected["tolerance"]
