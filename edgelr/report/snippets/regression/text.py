"""Does this encoder still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime, tokenizers and pytest. conftest.py says which provider is tested, and how
closely. `stored` holds texts, and what the original and this bundle answered to them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

TOGETHER = 4  # texts whose whole outputs are stored


def run(session: ort.InferenceSession, ids: Any, mask: Any) -> Any:
    """Run token ids ``(rows, tokens)``; return hidden states, or logits."""
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    inputs = {item.name for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    output = "last_hidden_state" if "last_hidden_state" in names else names[0]
    wanted = {name: value for name, value in feeds.items() if name in inputs}
    return session.run([output], wanted)[0].astype(np.float32)


def pool(hidden: Any, pooling: str) -> Any:
    """Make one vector of the tokens of a text, ``(tokens, features)``, unless the graph has."""
    if hidden.ndim == 1:
        return hidden
    if pooling in ("cls", "last_token"):
        return hidden[0 if pooling == "cls" else -1]
    if pooling == "max":
        return hidden.max(axis=0)
    weights = np.arange(1, len(hidden) + 1) if pooling == "weighted_mean" else None
    return np.average(hidden, axis=0, weights=weights)


def answer(output: Any, ids: Any, manifest: Any) -> Any:
    """Return the unit vector of a text ``(1, features)``, or its logits ``(decisions, labels)``."""
    if manifest["task"] == "fill-mask":
        return output[ids[0] == manifest["mask_token"]]
    if manifest["task"] != "feature-extraction":
        return output.reshape(-1, output.shape[-1])
    vector = pool(output, manifest["pooling"])
    return vector[None] / np.linalg.norm(vector)


@pytest.fixture(scope="session")
def rows(stored: Any, manifest: Any) -> list[Any]:
    """Return the token ids of every text, ``(1, length)``, with masks where these are filled."""
    given = np.where(stored["masked"], manifest["mask_token"] or 0, stored["ids"])
    pairs = zip(given, stored["lengths"], strict=True)
    return [ids[None, :length] for ids, length in pairs]


@pytest.fixture(scope="session")
def alone(session: ort.InferenceSession, rows: Any) -> list[Any]:
    """Run every text alone."""
    return [run(session, ids, np.ones_like(ids))[0] for ids in rows]


@pytest.fixture(scope="session")
def answers(alone: Any, rows: Any, manifest: Any) -> Any:
    """Return what every text is answered, ``(decisions, features or labels)``."""
    pairs = zip(alone, rows, strict=True)
    return np.concatenate([answer(output, ids, manifest) for output, ids in pairs])


def test_the_tokenizer_gives_the_stored_ids(folder: Path, manifest: Any, stored: Any) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    longest = (tokenizer.truncation or {}).get("max_length", manifest["context_tokens"])
    tokenizer.enable_truncation(min(longest, manifest["context_tokens"]))
    tokenizer.no_padding()
    for text, ids, length in zip(stored["texts"], stored["ids"], stored["lengths"], strict=True):
        assert tokenizer.encode(str(text)).ids == ids[:length].tolist(), str(text)


def test_outputs_are_those_of_the_export(
    alone: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    for index, found in enumerate(alone[:TOGETHER]):
        places = found[..., stored["columns"]]
        assert difference(places, stored[f"output_{index}"]) <= expected["tolerance"]


def test_answers_are_those_of_the_export(
    answers: Any, manifest: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    found = answers[:, stored["columns"]]
    # a vector has length 1: its scale is its own
    scale = 1.0 if manifest["task"] == "feature-extraction" else expected["scale"]
    assert difference(found, stored["answers"], scale) <= expected["tolerance"]


def test_answers_are_within_the_gate_of_the_original(
    answers: Any, manifest: Any, stored: Any, expected: Any
) -> None:
    if manifest["task"] == "feature-extraction":
        agreement = float((answers * stored["original_answers"]).sum(axis=-1).mean())
    elif expected["several_labels"]:
        agreement = float(((answers > 0) == (stored["original_answers"] > 0)).mean())
    else:
        agreement = float((answers.argmax(axis=-1) == stored["original_best"]).mean())
    assert agreement >= expected["limit"], f"{expected['metric']} is {agreement:.4f}"


def test_padded_texts_answer_like_texts_alone(
    session: ort.InferenceSession,
    rows: Any,
    alone: Any,
    config: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    longest = max(ids.shape[1] for ids in rows[:TOGETHER])
    padding = max(0, config.get("pad_token_id") or 0)
    padded = np.full((len(rows[:TOGETHER]), longest), padding, np.int64)
    mask = np.zeros_like(padded)
    for row, ids in enumerate(rows[:TOGETHER]):
        padded[row, : ids.shape[1]] = ids[0]
        mask[row, : ids.shape[1]] = 1
    for found, wanted in zip(run(session, padded, mask), alone[:TOGETHER], strict=True):
        same = found[: len(wanted)] if wanted.ndim == 2 else found
        assert difference(same, wanted) <= expected["tolerance"]
