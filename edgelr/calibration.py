"""Calibration batches: token ids from text files, or ids that were sampled from the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from edgelr.cache import digest
from edgelr.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Rows of token ids; rows of one text each for encoders, plain chunks for decoders.

    Attributes:
        ids: ``(rows, length)``, int64.
        mask: ``(rows, length)``, 1 for real tokens.
        description: what the text was, for the report.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    description: str

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    @property
    def key(self) -> str:
        """Hash of the tokens themselves."""
        return digest(self.ids.shape, self.ids.tobytes().hex(), self.mask.tobytes().hex())

    def batches(self, rows: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield ``(ids, mask)`` of up to ``rows`` rows, cut to the longest row of the batch."""
        for start in range(0, len(self.ids), rows):
            ids, mask = self.ids[start : start + rows], self.mask[start : start + rows]
            longest = int(mask.sum(axis=1).max())
            yield ids[:, :longest], mask[:, :longest]

    def first(self, tokens: int) -> Calibration:
        """Keep rows spread evenly over the whole, until about ``tokens`` tokens are kept."""
        rows = max(1, round(len(self.ids) * min(1.0, tokens / self.tokens)))
        chosen = np.linspace(0, len(self.ids) - 1, rows).astype(int)
        return Calibration(self.ids[chosen], self.mask[chosen], self.description)


def from_chunks(
    text: str, tokenizer: Tokenizer, tokens: int, length: int, description: str
) -> Calibration:
    """Cut the beginning of ``text`` into chunks of ``length`` tokens, without special tokens.

    Raises:
        InputError: the text holds fewer than ``length`` tokens.
    """
    ids = encode_prefix(text, tokenizer, tokens)
    rows = min(len(ids), tokens) // length
    if rows == 0:
        raise InputError(
            f"The calibration text ({description}) holds {len(ids):,} tokens; expected at least "
            f"one chunk of {length:,}. Give more text, or lower --calibration-length."
        )
    chunks = np.asarray(ids[: rows * length], dtype=np.int64).reshape(rows, length)
    return Calibration(chunks, np.ones_like(chunks), description)


def from_texts(
    texts: list[str], tokenizer: Tokenizer, tokens: int, length: int, description: str
) -> Calibration:
    """Tokenize one text per row, padded on the right, until ``tokens`` tokens are collected.

    Raises:
        InputError: there is no text.
    """
    if not texts:
        raise InputError(f"The calibration text ({description}) is empty; expected sentences.")
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    rows: list[list[int]] = []
    total = 0
    for encoding in tokenizer.encode_batch(texts):
        rows.append(encoding.ids)
        total += len(encoding.ids)
        if total >= tokens:
            break
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return Calibration(ids, mask, description)


def from_samples(ids: NDArray[np.int64], description: str) -> Calibration:
    """Wrap rows that were sampled from the model, ``(rows, length)``."""
    return Calibration(ids, np.ones_like(ids), description)


def weights(parts: list[Calibration]) -> list[float]:
    """Weigh texts against each other, by the square roots of their lengths; they add up to 1.

    In between of what a user who gives much of one text and little of another may want: equal
    parts, and every token as much as any other.
    """
    roots = [math.sqrt(part.tokens) for part in parts]
    return [root / sum(roots) for root in roots]


def spread(parts: list[Calibration], tokens: int) -> list[Calibration]:
    """Keep about ``tokens`` tokens of all parts together, fewer where one is short of its weight.

    Every part keeps as many as its weight asks for: what counts tokens alike weighs texts rightly.
    """
    shares = weights(parts)
    pairs = list(zip(parts, shares, strict=True))
    kept = min(float(tokens), *(part.tokens / share for part, share in pairs))
    return [part.first(round(kept * share)) for part, share in pairs]


def encode_prefix(text: str, tokenizer: Tokenizer, tokens: int) -> list[int]:
    """Tokenize as much of ``text`` as ``tokens`` tokens can need, without special tokens."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids: list[int] = tokenizer.encode(text[: tokens * 16], add_special_tokens=False).ids
    return ids


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json`` of a model folder.

    Raises:
        InputError: the folder has none.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(
            f"{folder} has no tokenizer.json; expected a fast tokenizer's file. Save one with "
            f"AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )
    return Tokenizer.from_file(str(path))
