"""Does this encoder with its decoder still answer as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime, tokenizers and pytest. conftest.py says which provider is tested, and how
closely. `stored` holds texts, answers that were drawn from the original, and what the original and
this bundle predicted of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
TOGETHER = 4  # texts whose whole predictions are stored
Feeds = dict[str, Any]


class EncoderDecoder:
    """Both graphs, with the decoder's cache of keys and values, which grows with every run."""

    def __init__(self, encoder: ort.InferenceSession, decoder: ort.InferenceSession) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.inputs = {item.name: item for item in decoder.get_inputs()}
        self.past = [name for name in self.inputs if ".decoder." in name]

    def read(self, ids: Any, mask: Any) -> Feeds:
        """Read sources ``(rows, tokens)``; return what the decoder is fed of them."""
        names = [item.name for item in self.encoder.get_outputs() if ".encoder." in item.name]
        given = {"input_ids": ids, "attention_mask": mask}
        wanted = {item.name: given[item.name] for item in self.encoder.get_inputs()}
        values = zip(names, self.encoder.run(names, wanted), strict=True)
        found = {name.replace("present", "past_key_values"): value for name, value in values}
        found["encoder_attention_mask"] = mask
        return {name: value for name, value in found.items() if name in self.inputs}

    def logits(self, ids: Any, source: Feeds, past: Feeds | None = None) -> tuple[Any, Feeds]:
        """Run tokens ``(rows, tokens)`` after those of ``past``; return their logits."""
        past = past or {name: self.empty(name, len(ids)) for name in self.past}
        names = ["logits", *(name.replace("past_key_values", "present") for name in self.past)]
        logits, *present = self.decoder.run(names, {"input_ids": ids, **source, **past})
        return logits.astype(np.float32), dict(zip(self.past, present, strict=True))

    def empty(self, name: str, rows: int) -> Any:
        """Make keys or values of sequences that have no token yet."""
        item = self.inputs[name]
        return np.zeros((rows, item.shape[1], 0, item.shape[3]), NUMPY_TYPES[item.type])


@pytest.fixture(scope="session")
def pair(encoder: ort.InferenceSession, session: ort.InferenceSession) -> EncoderDecoder:
    """Open both graphs."""
    return EncoderDecoder(encoder, session)


@pytest.fixture(scope="session")
def texts(stored: Any) -> list[tuple[Any, Any]]:
    """Return the token ids of every text and of its answer, ``(1, length)`` both."""
    names = ("ids", "lengths", "targets", "target_lengths")
    rows = zip(*(stored[name] for name in names), strict=True)
    return [(ids[None, :count], target[None, :stop]) for ids, count, target, stop in rows]


@pytest.fixture(scope="session")
def read(pair: EncoderDecoder, texts: Any) -> list[Feeds]:
    """Read every text alone."""
    return [pair.read(ids, np.ones_like(ids)) for ids, _ in texts]


@pytest.fixture(scope="session")
def alone(pair: EncoderDecoder, texts: Any, read: Any) -> list[Any]:
    """Predict every answer alone, ``(tokens, vocabulary)``."""
    rows = zip(texts, read, strict=True)
    return [pair.logits(target[:, :-1], source)[0][0] for (_, target), source in rows]


@pytest.fixture(scope="session")
def losses(alone: Any, texts: Any) -> Any:
    """Return the loss of every token of every answer, in nats."""
    found = []
    for logits, (_, target) in zip(alone, texts, strict=True):
        wide = logits.astype(np.float64)
        top = wide.max(-1)
        sums = top + np.log(np.exp(wide - top[:, None]).sum(-1))
        found.append(sums - wide[np.arange(len(wide)), target[0, 1:]])
    return np.concatenate(found)


def test_the_tokenizer_gives_the_stored_ids(folder: Path, manifest: Any, stored: Any) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["context_tokens"])
    tokenizer.no_padding()
    for text, ids, length in zip(stored["texts"], stored["ids"], stored["lengths"], strict=True):
        assert tokenizer.encode(str(text)).ids == ids[:length].tolist(), str(text)


def test_logits_are_those_of_the_export(
    alone: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    for index, logits in enumerate(alone[:TOGETHER]):
        found = logits[:, stored["columns"]]
        assert difference(found, stored[f"logits_{index}"]) <= expected["tolerance"]


def test_losses_are_those_of_the_export(
    losses: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    # a logarithm of probabilities moves by twice as much as the logits at most
    assert difference(losses, stored["losses"]) <= 2 * expected["tolerance"]


def test_the_loss_is_within_the_gate_of_the_original(
    losses: Any, stored: Any, expected: Any
) -> None:
    ratio = float(np.exp((losses - stored["original_losses"]).mean()))
    assert ratio <= expected["limit"], f"perplexity is {ratio:.4f} times that of the original"


def test_padded_texts_answer_like_texts_alone(
    pair: EncoderDecoder, texts: Any, alone: Any, expected: Any, difference: Callable[..., float]
) -> None:
    few = texts[:TOGETHER]
    shape = len(few), max(ids.shape[1] for ids, _ in few)
    padded, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    length = min(target.shape[1] for _, target in few) - 1
    for row, (ids, _) in enumerate(few):
        padded[row, : ids.shape[1]] = ids[0]
        mask[row, : ids.shape[1]] = 1
    targets = np.concatenate([target[:, :length] for _, target in few])
    together = pair.logits(targets, pair.read(padded, mask))[0]
    for found, wanted in zip(together, alone[:TOGETHER], strict=True):
        assert difference(found, wanted[:length]) <= expected["tolerance"]


def test_token_by_token_answers_like_all_at_once(
    pair: EncoderDecoder,
    texts: Any,
    read: Any,
    alone: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    for index, (_, target) in enumerate(texts[:TOGETHER]):
        past = None
        for place, wanted in enumerate(alone[index]):
            logits, past = pair.logits(target[:, place : place + 1], read[index], past)
            assert difference(logits[0, 0], wanted) <= expected["tolerance"]


def test_greedy_tokens_are_those_of_the_export(
    pair: EncoderDecoder, read: Any, stored: Any, expected: Any
) -> None:
    rows = zip(read[:TOGETHER], stored["greedy"], stored["leads"], strict=True)
    for source, wanted, leads in rows:
        step, past = stored["start"][None], None
        for place, (token, lead) in enumerate(zip(wanted, leads, strict=True)):
            if lead <= 2 * expected["tolerance"] * expected["scale"]:
                break  # two tokens are as likely: another machine may take the other one
            logits, past = pair.logits(step, source, past)
            logits[:, :, stored["never"]] = -np.inf
            if place == 0:
                logits[:, :, stored["never_first"]] = -np.inf
            assert logits[0, -1].argmax() == token
            step = np.array([[token]])
