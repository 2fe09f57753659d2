"""Calibration batches: token ids from texts or sampled from the model, images, or sounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from edgelr.core.cache import digest
from edgelr.core.errors import InputError
from edgelr.core.inputs import Prompts, SourceAndTarget, arrays_of, with_arrays
from edgelr.data.padding import right_padded
from edgelr.data.pairs import Pair
from edgelr.data.text import mask_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Rows that a model reads: a text each for encoders, chunks for decoders, or an image each.

    Attributes:
        inputs: token ids ``(rows, length)``, int64; of pairs of texts ``(rows, 2, length)``, the
            second telling which text a token is of; pixels ``(rows, 3, side, side)``, float32; or
            a value of several such arrays.
        mask: mask, 1 for real tokens, ``(rows, length)``; an image has the tokens that the model
            makes of it.
        description: name of the text, for the report.
        beside: hash of the prompts that every row is read with; empty without any.
    """

    inputs: Any  # NDArray[Any] | SourceAndTarget
    mask: NDArray[np.int64]
    description: str
    beside: str = ""

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    @property
    def length(self) -> int:
        """Tokens of a row, with padding."""
        return int(self.mask.shape[1])

    @property
    def key(self) -> str:
        """Hash of the tokens or pixels themselves."""
        inputs = arrays_of(self.inputs)
        parts = (sha256(part.tobytes()).hexdigest() for part in (*inputs, self.mask))
        beside = (self.beside,) if self.beside else ()
        return digest(*(part.shape for part in inputs), *parts, *beside)

    def batches(self, rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield ``(inputs, mask)`` of up to ``rows`` rows, cut to the longest row of the batch."""
        for start in range(0, len(self.mask), rows):
            part = self._taken(slice(start, start + rows))
            longest = int(part.mask.sum(axis=1).max())
            yield part._cut(longest), part.mask[:, :longest]

    def rows(self) -> Iterator[tuple[NDArray[Any], int]]:
        """Yield every row without its padding, and how many tokens it has."""
        for row, mask in zip(self.inputs, self.mask, strict=True):
            tokens = int(mask.sum())
            yield (row[..., :tokens] if self._of_tokens else row), tokens

    def first(self, tokens: int) -> Calibration:
        """Keep rows spread evenly over the whole, until about ``tokens`` tokens are kept."""
        rows = max(1, round(len(self.mask) * min(1.0, tokens / self.tokens)))
        return self._taken(np.linspace(0, len(self.mask) - 1, rows).astype(int))

    def every(self, step: int, start: int) -> Calibration:
        """Keep one row in ``step``, from ``start`` on; of fewer rows than two such, keep all."""
        return self._taken(slice(start, None, step)) if len(self.mask) >= 2 * step else self

    def _taken(self, rows: slice | NDArray[Any]) -> Calibration:
        inputs = with_arrays(self.inputs, lambda array: array[rows])
        return replace(self, inputs=inputs, mask=self.mask[rows])

    def _cut(self, longest: int) -> Any:
        """Cut padding away; inputs that are not one number per token stay whole."""
        return self.inputs[..., :longest] if self._of_tokens else self.inputs

    @property
    def _of_tokens(self) -> bool:
        """True where inputs are numbers of tokens, and are cut like the tokens."""
        return bool(np.issubdtype(self.inputs.dtype, np.integer))


@dataclass(frozen=True)
class SourceCalibration(Calibration):
    """Rows of a model with an encoder and a decoder: ``inputs`` is a ``SourceAndTarget``.

    ``mask`` and ``tokens`` are about the tokens that are predicted.
    """

    @property
    def source_tokens(self) -> int:
        """Tokens that the encoder reads."""
        return int(self.inputs.source_mask.sum())

    @property
    def length(self) -> int:
        """Tokens of a row, with padding: those of its source and of its target."""
        return int(self.mask.shape[1] + self.inputs.source_mask.shape[1])

    def _cut(self, longest: int) -> SourceAndTarget:
        source, mask, target = arrays_of(self.inputs)
        width = int(mask.sum(axis=1).max())
        source = source[:, :width] if source.ndim == 2 else source
        return SourceAndTarget(source, mask[:, :width], target[:, : longest + 1])


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
    texts: Sequence[str | Pair],
    tokenizer: Tokenizer,
    tokens: int,
    length: int,
    description: str,
    mask_token: int | None = None,
    typed: bool = False,
) -> Calibration:
    """Tokenize one text or pair per row, padded on the right, until there are ``tokens`` tokens.

    Some of them are replaced by ``mask_token``, where there is one: see ``text.mask_tokens``. Where
    they are ``typed``, a row also tells which text of a pair each is of.

    Raises:
        InputError: there is no text.
    """
    if not texts:
        raise InputError(f"The calibration text ({description}) is empty; expected sentences.")
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    rows: list[Any] = []
    total = 0
    for encoding in tokenizer.encode_batch(list(texts)):
        ids = encoding.ids if mask_token is None else mask_tokens(encoding, mask_token)
        rows.append([ids, encoding.type_ids] if typed else ids)
        total += len(encoding.ids)
        if total >= tokens:
            break
    return Calibration(*right_padded(rows), description)


def from_samples(ids: NDArray[np.int64], description: str) -> Calibration:
    """Wrap rows that were sampled from the model, ``(rows, length)``."""
    return Calibration(ids, np.ones_like(ids), description)


def with_targets(sources: Calibration, targets: list[list[int]]) -> SourceCalibration:
    """Join sources with the targets that a decoder makes of them.

    Args:
        sources: texts or sounds.
        targets: token ids of every row, from the start token on; at least two.
    """
    ids, real = right_padded(targets)
    inputs = SourceAndTarget(sources.inputs, sources.mask, ids)
    return SourceCalibration(inputs, real[:, 1:], sources.description)


def from_images(
    pixels: NDArray[np.float32],
    tokens: int,
    description: str,
    prompts: Prompts | None = None,
) -> Calibration:
    """Wrap images ``(rows, 3, side, side)``, of which a model makes ``tokens`` tokens each.

    Where they are compared with ``prompts``, other prompts make other statistics.
    """
    beside = "" if prompts is None else digest(prompts.ids.tolist(), prompts.mask.tolist())
    return Calibration(pixels, np.ones((len(pixels), tokens), np.int64), description, beside)


def from_sounds(features: NDArray[np.float32], tokens: int, description: str) -> Calibration:
    """Wrap sounds ``(rows, mel_bins, frames)`` as sources, with ``tokens`` positions each."""
    return Calibration(features, np.ones((len(features), tokens), np.int64), description)


def weights(parts: list[Calibration]) -> list[float]:
    """Weight of a text = sqrt(length in tokens), normalized to a sum of 1.

    A compromise between per-text weighting, where every text counts alike, and per-token weighting.
    """
    roots = [math.sqrt(part.tokens) for part in parts]
    return [root / sum(roots) for root in roots]


def spread(parts: list[Calibration], tokens: int) -> list[Calibration]:
    """Keep about ``tokens`` tokens of all parts together, fewer where one is short of its weight.

    Every part keeps as many tokens as its weight asks for, so that a plain sum over the tokens that
    are kept weighs the texts as ``weights`` does.
    """
    weighted = list(zip(parts, weights(parts), strict=True))
    kept = min(float(tokens), *(part.tokens / weight for part, weight in weighted))
    return [part.first(round(kept * weight)) for part, weight in weighted]


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
