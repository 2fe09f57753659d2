"""Does this decoder still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime, tokenizers and pytest. conftest.py says which provider is tested, and how
closely. `stored` holds inputs, and what the original and this bundle answered to them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Cache = dict[str, Any]


class DecoderSession:
    """The graph with its cache of keys and values, which grows with every run."""

    def __init__(self, session: ort.InferenceSession, config: Any) -> None:
        self.session, self.config = session, config
        self.inputs = {item.name: item for item in session.get_inputs()}
        self.past = [name for name in self.inputs if name.startswith("past_key_values.")]

    def empty_cache(self, rows: int) -> Cache:
        """Make the cache of sequences that have no token yet."""
        heads, width = self.config["num_attention_heads"], self.config["hidden_size"]
        size, cache = self.config.get("head_dim") or width // heads, {}
        for name in self.past:
            shape = [rows, self.inputs[name].shape[1], 0, self.inputs[name].shape[3]]
            if not isinstance(shape[1], int):
                shape[1] = self.config.get("num_key_value_heads") or heads
            if not isinstance(shape[3], int):
                shape[3] = size
            cache[name] = np.zeros(shape, NUMPY_TYPES[self.inputs[name].type])
        return cache

    def logits(self, ids: Any, mask: Any = None, past: Cache | None = None) -> tuple[Any, Cache]:
        """Run tokens ``(rows, tokens)`` after those of ``past``; return their logits."""
        past = past or self.empty_cache(len(ids))
        held = past[self.past[0]].shape[2]
        mask = np.ones((len(ids), held + ids.shape[1]), np.int64) if mask is None else mask
        positions = np.maximum(mask.cumsum(-1) - 1, 0)[:, held:]
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        names = ["logits", *(name.replace("past_key_values", "present") for name in self.past)]
        wanted = {name: value for name, value in feeds.items() if name in self.inputs}
        logits, *present = self.session.run(names, wanted)
        return logits.astype(np.float32), dict(zip(self.past, present, strict=True))


@pytest.fixture(scope="session")
def decoder(session: ort.InferenceSession, config: Any) -> DecoderSession:
    """Open the decoder."""
    return DecoderSession(session, config)


@pytest.fixture(scope="session")
def prompts(stored: Any) -> list[Any]:
    """Return the token ids of every prompt, ``(1, length)``."""
    rows = zip(stored["ids"], stored["lengths"], strict=True)
    return [ids[None, :length] for ids, length in rows]


@pytest.fixture(scope="session")
def alone(decoder: DecoderSession, prompts: Any) -> list[Any]:
    """Run every prompt alone, ``(length, vocabulary)``."""
    return [decoder.logits(ids)[0][0] for ids in prompts]


@pytest.fixture(scope="session")
def predicted(decoder: DecoderSession, stored: Any) -> tuple[Any, Any]:
    """Return the loss of every next token of the text, in nats, and the likeliest tokens."""
    losses, best = [], []
    for chunk in stored["chunks"]:
        logits = decoder.logits(chunk[None])[0][0, :-1].astype(np.float64)
        top = logits.max(-1)
        sums = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        losses.append(sums - logits[np.arange(len(logits)), chunk[1:]])
        best.append(logits.argmax(-1))
    return np.array(losses), np.array(best)


def test_the_tokenizer_gives_the_stored_ids(folder: Path, stored: Any) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, ids, length in zip(stored["texts"], stored["ids"], stored["lengths"], strict=True):
        assert tokenizer.encode(str(text)).ids == ids[:length].tolist(), str(text)


def test_logits_are_those_of_the_export(
    alone: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    for index, logits in enumerate(alone):
        found, wanted = logits[:, stored["columns"]], stored[f"logits_{index}"]
        assert difference(found, wanted) <= expected["tolerance"]


def test_losses_are_those_of_the_export(
    predicted: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    # a logarithm of probabilities moves by twice as much as the logits at most
    assert difference(predicted[0], stored["losses"]) <= 2 * expected["tolerance"]


def test_the_loss_is_within_the_gate_of_the_original(
    predicted: Any, stored: Any, expected: Any
) -> None:
    ratio = float(np.exp((predicted[0] - stored["original_losses"]).mean()))
    assert ratio <= expected["limit"], f"perplexity is {ratio:.4f} times that of the original"


def test_padded_prompts_answer_like_prompts_alone(
    decoder: DecoderSession,
    prompts: Any,
    alone: Any,
    config: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    longest = max(ids.shape[1] for ids in prompts)
    padded = np.full((len(prompts), longest), config.get("pad_token_id") or 0, np.int64)
    mask = np.zeros_like(padded)
    for row, ids in enumerate(prompts):
        padded[row, longest - ids.shape[1] :] = ids[0]
        mask[row, longest - ids.shape[1] :] = 1
    for found, wanted in zip(decoder.logits(padded, mask)[0], alone, strict=True):
        assert difference(found[-len(wanted) :], wanted) <= expected["tolerance"]


def test_token_by_token_answers_like_all_at_once(
    decoder: DecoderSession,
    prompts: Any,
    alone: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    for ids, wanted in zip(prompts, alone, strict=True):
        cache = decoder.empty_cache(1)
        for place in range(ids.shape[1]):
            logits, cache = decoder.logits(ids[:, place : place + 1], past=cache)
            assert difference(logits[0, 0], wanted[place]) <= expected["tolerance"]


def test_greedy_tokens_are_those_of_the_export(
    decoder: DecoderSession, prompts: Any, stored: Any, expected: Any
) -> None:
    for ids, wanted, leads in zip(prompts, stored["greedy"], stored["leads"], strict=True):
        step, cache = ids, decoder.empty_cache(1)
        for token, lead in zip(wanted, leads, strict=True):
            if lead <= 2 * expected["tolerance"] * expected["scale"]:
                break  # two tokens are as likely: another machine may take the other one
            logits, cache = decoder.logits(step, past=cache)
            assert logits[0, -1].argmax() == token
            step = np.array([[token]])
