"""Evaluation texts: read one, and cut it into token chunks or sentences."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

DEFAULT_TEXT = "Python's pydoc_data.topics"
PROMPTS = (  # that bundles are compared on, token by token
    "The capital of France is",
    "Photosynthesis is the process by which",
    "def fibonacci(n):\n    ",
    "In 1905, Albert Einstein published a paper that",
    "A short list of things to pack for a walk in the mountains: water,",
)
PAIR_KEYS = (  # of the two texts of a pair, in a line of JSON
    ("text", "text_pair"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "answer"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_CHARACTERS = range(20, 401)  # shorter is a heading, longer is no sentence
_MOST_CHARACTERS = 16  # per token, in prose: more text than this is never needed
_FEWEST_SENTENCES = 3  # two give one pair: nothing to rank
_MASKED = 0.15  # of the tokens, as in training (Devlin et al., 2018, arXiv:1810.04805)


@dataclass(frozen=True, slots=True)
class EvaluationSize:
    """How much is judged on: ``chunks`` of ``length`` tokens, ``sentences``, ``images``, or pairs.

    Pairs are sentences, and what an encoder with a decoder answers to them.
    """

    chunks: int = 16
    length: int = 1024
    sentences: int = 500
    images: int = 500
    pairs: int = 128


@dataclass(frozen=True)
class Texts:
    """Disjoint parts of the texts of a run; for images and sounds a text is a list of files.

    Attributes:
        evaluation: text of the accuracy figures and of the gate.
        selection: text that the search for the smallest plan measures.
        calibration: ``(description, text)`` of every calibration text; ``self`` has none.
        evaluation_name: name of what is judged on, for the report.
        evaluation_part: part of it that is judged on.
        records: lines of ``evaluation`` with what is true of each; empty where nothing tells.
    """

    evaluation: str
    selection: str
    calibration: tuple[tuple[str, str | None], ...]
    evaluation_name: str
    evaluation_part: str = "first half"
    records: str = ""

    @property
    def judged_on(self) -> str:
        """Name of the data that the accuracy figures are about."""
        return f"{self.evaluation_name}, {self.evaluation_part}"

    def write_judged(self, folder: Path) -> Path:
        """Write the data that is judged on into a folder."""
        path = folder / ("evaluation.jsonl" if self.records else "evaluation.txt")
        path.write_text(self.records or self.evaluation, encoding="utf-8")
        return path


def read_text(path: Path | None) -> str:
    """Read a text: ``.txt`` as it is, None for the default, ``.jsonl`` by its keys.

    Of a line, these are ``text``, ``source``, the words in ``tokens``, or a pair of texts. The
    default is technical English that ships with every Python.

    Raises:
        InputError: the file is missing, empty, or not in its format.
    """
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    content = read_file(path)
    text = join_lines(path, content) if path.suffix == ".jsonl" else content
    if not text.strip():
        raise InputError(f"{path} holds no text. Expected prose. Name another file.")
    return text


def read_file(path: Path) -> str:
    """Read a file of text as it is.

    Raises:
        InputError: it is missing, or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read the text {path}: {error}. Expected a UTF-8 file. Name another file."
        ) from error


def chunk_tokens(text: str, tokenizer: Tokenizer, chunks: int, length: int) -> NDArray[np.int64]:
    """Cut a text into whole token chunks, without special tokens.

    Returns:
        Token ids, ``(at most chunks, length)`` int64.

    Raises:
        InputError: the text is shorter than one chunk.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    enough = text[: chunks * length * _MOST_CHARACTERS]
    ids = tokenizer.encode(enough, add_special_tokens=False).ids
    count = min(chunks, len(ids) // length)
    if count == 0:
        raise InputError(
            f"The text has {len(ids):,} tokens. Expected at least one chunk of {length:,}. "
            f"Give a longer text, or shorter chunks."
        )
    return np.array(ids[: count * length], np.int64).reshape(count, length)


def split_sentences(text: str, count: int) -> list[str]:
    """Take the first ``count`` sentences of 20 to 400 characters, in order.

    Raises:
        InputError: fewer than three such sentences were found.
    """
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    found = [part for part in parts if len(part) in _CHARACTERS][:count]
    if len(found) < _FEWEST_SENTENCES:
        raise InputError(
            f"The text has {len(found)} sentences of 20 to 400 characters. Expected at least "
            f"{_FEWEST_SENTENCES}. Give a longer text."
        )
    return found


def mask_tokens(encoding: Encoding, mask_token: int) -> list[int]:
    """Replace 15 % of the tokens of a text, one at least, by the mask.

    The tokens themselves are the seed: a text has the same masks in every run, and beside any
    other text.
    """
    ids = np.array(encoding.ids, np.int64)
    places = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
    count = min(len(places), max(1, round(_MASKED * len(places))))
    ids[np.random.default_rng(encoding.ids).choice(places, count, replace=False)] = mask_token
    masked: list[int] = ids.tolist()
    return masked


def join_lines(path: Path, content: str) -> str:
    """Join the texts of the objects in the lines of ``path``, see ``read_text``.

    Raises:
        InputError: a line holds none.
    """
    texts = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            texts.append(_text_of(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{path}, line {number} is not {{"text": …}}. Expected one JSON object per line. '
                f"Mend that line, or give a .txt file."
            ) from error
    return "\n".join(texts)


def _text_of(record: dict[str, Any]) -> str:
    if "tokens" in record:
        return " ".join(map(str, record["tokens"]))
    for first, second in PAIR_KEYS:
        if first in record and second in record:
            return f"{record[first]}\n{record[second]}"
    return str(record["text"] if "text" in record else record["source"])
