"""Run a graph of texts and one of images: embeddings of both, and which prompt fits an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.bundle import ExportBundle, read_tokenizer
from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput, Matching
from edgelr.core.vocabulary import Array
from edgelr.data.images import read_pixels
from edgelr.data.padding import right_padded
from edgelr.data.prompts import tokenized
from edgelr.runtime.session import Session, open_session

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 8  # images; four times as many texts


class Matcher:
    """Two graphs that embed texts and images, so that they can be compared.

    Args:
        texts: a graph with the input ``input_ids``, and ``attention_mask`` where padding is not
            read.
        images: a graph with the input ``pixel_values``.
        image: how files are prepared.
        matching: how embeddings are compared, and the prompts.
        tokenizer: of the texts; None where none are read.

    Raises:
        InputError: the graphs have other inputs.
    """

    input_name = "row"

    def __init__(
        self,
        texts: Session,
        images: Session,
        image: ImageInput,
        matching: Matching,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.texts, self.session = texts, images
        self.image, self.matching, self.tokenizer = image, matching, tokenizer
        wanted = {"input_ids"} if matching.padded else {"input_ids", "attention_mask"}
        if set(texts.inputs) != wanted or set(images.inputs) != {"pixel_values"}:
            raise InputError(
                f"{texts.path} and {images.path} are no pair that edgelr can run: their inputs are "
                f"{sorted(texts.inputs)} and {sorted(images.inputs)}. Expected {sorted(wanted)} "
                f"and pixel_values. Export the model with edgelr."
            )

    @classmethod
    def open(
        cls, bundle: ExportBundle, provider: str = "cpu", threads: int | None = None
    ) -> Matcher:
        """Open both graphs of a bundle, with its tokenizer."""
        image, matching = bundle.manifest.image, bundle.manifest.matching
        assert bundle.encoder_path is not None, "this bundle has one graph"
        assert image is not None
        assert matching is not None
        texts = open_session(bundle.encoder_path, provider, threads)
        images = open_session(bundle.model_path, provider, threads)
        return cls(texts, images, image, matching, read_tokenizer(bundle))

    def run(self, rows: Array, mask: Array | None = None) -> Array:
        """Embed images ``(batch, 3, side, side)``, or token ids ``(batch, length)``.

        Args:
            rows: of one kind.
            mask: of the ids, 0 for padding; None for a batch without.

        Returns:
            ``(batch, features)`` float32, of any length.
        """
        if rows.ndim == 4:
            session, feeds = self.session, {"pixel_values": rows}
        else:
            session, feeds = self.texts, {"input_ids": rows}
            if not self.matching.padded:
                feeds["attention_mask"] = np.ones_like(rows) if mask is None else mask
        (found,), _ = session.run(feeds, [next(iter(session.outputs))])
        return found.astype(np.float32, copy=False)

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run images ``(3, side, side)`` as one batch, and token ids ``(length,)`` as another."""
        images = [index for index, row in enumerate(rows) if row.ndim == 3]
        texts = [index for index, row in enumerate(rows) if row.ndim == 1]
        found: dict[int, Array] = {}
        if images:
            found |= zip(images, self.run(np.stack([rows[each] for each in images])), strict=True)
        if texts:
            padded = right_padded([rows[each].tolist() for each in texts], self.matching.pad_token)
            found |= zip(texts, self.run(*padded), strict=True)
        return [found[index] for index in range(len(rows))]

    def embed(self, paths: Sequence[Path], batch: int = _BATCH) -> Array:
        """Compute one unit vector for each image file, ``(images, features)`` float32."""
        parts = (paths[start : start + batch] for start in range(0, len(paths), batch))
        return _unit(np.concatenate([self.run(read_pixels(part, self.image)) for part in parts]))

    def embed_texts(self, texts: Sequence[str], batch: int = 4 * _BATCH) -> Array:
        """Compute one unit vector for each text, ``(texts, features)`` float32."""
        assert self.tokenizer is not None, "these graphs were opened without a tokenizer"
        read = tokenized(texts, self.tokenizer, self.matching)
        parts = [slice(start, start + batch) for start in range(0, len(texts), batch)]
        return _unit(np.concatenate([self.run(read.ids[part], read.mask[part]) for part in parts]))

    def logits(self, images: Array, texts: Array) -> Array:
        """Compare unit vectors of images with those of texts, ``(images, texts)``."""
        found: Array = self.matching.scale * (images @ texts.T) + self.matching.bias
        return found


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
