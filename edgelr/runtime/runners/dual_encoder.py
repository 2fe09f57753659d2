"""Dual encoders: embeddings of texts and of images, and which prompt fits an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from edgelr.runtime.graphs import open_graphs, random_ids, random_values
from edgelr.runtime.requests import (
    ON_CPU,
    CappedRuns,
    DeviceSizes,
    Evaluation,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)
from edgelr.runtime.runners import RUNNERS, Runner
from edgelr.runtime.runners.files import images_of
from edgelr.runtime.runners.forward import forward_phases, unit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgelr.runtime.session import Session

_BATCH = 8  # images; four times as many texts
_TEXT_TOKENS = 16  # a prompt is a few words


@RUNNERS.register("dual_encoder")
class DualEncoderRunner(Runner):
    """Two graphs that embed texts and images, so that they can be compared.

    Args:
        texts: graph with the input ``input_ids``, and ``attention_mask`` where padding is not
            read.
        images: graph with the input ``pixel_values``.
        image: preparation of files.
        matching: comparison of embeddings, and the prompts.
        tokenizer: tokenizer of the texts; None where none are read.

    Raises:
        InputError: the graphs have other inputs.
    """

    answer_names = ("row_0", "output_0")

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
                f"{texts.path} and {images.path} are no dual encoder that edgelr can run: their "
                f"inputs are {sorted(texts.inputs)} and {sorted(images.inputs)}. Expected "
                f"{sorted(wanted)} and pixel_values. Export the model with edgelr."
            )

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> DualEncoderRunner:
        """Open both graphs of a bundle."""
        image, matching = bundle.manifest.image, bundle.manifest.matching
        assert image is not None, "this bundle reads no images"
        assert matching is not None, "this bundle compares nothing"
        images, texts = open_graphs(bundle, execution)
        return cls(texts, images, image, matching, read_tokenizer(bundle) if tokenizer else None)

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List runs of one image, of several, and of one text."""
        matching = bundle.manifest.matching
        assert matching is not None, "this bundle compares nothing"
        tokens = matching.tokens if matching.padded else min(_TEXT_TOKENS, matching.tokens)
        images = forward_phases(bundle.manifest.context_tokens)
        return [*images, TimedPhase("text", 1, tokens)]

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Read a batch of the longest texts, and one of images."""
        tokens, matching = bundle.manifest.context_tokens, bundle.manifest.matching
        assert matching is not None, "this bundle compares nothing"
        texts = TimedPhase("text", sizes.batch, matching.tokens)
        return CappedRuns((texts, TimedPhase("forward", sizes.batch, tokens)), tokens, tokens)

    def samples(self, evaluation: Evaluation) -> tuple[list[Path], tuple[str, ...]]:
        """List image files; the prompts that they are compared with are the candidate's own."""
        candidate = evaluation.candidate
        images, matching = images_of(evaluation), candidate.manifest.matching
        if matching is None or not matching.prompts:
            raise InputError(
                f"{candidate.folder} names no prompts, among which one is chosen for an image; "
                f"expected a bundle that was exported with labels. Export the model with --labels "
                f"FILE."
            )
        return images, matching.prompts

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw tokens or pixels."""
        if phase.phase == "text":  # config.json may leave the size of the vocabulary out
            rows = random_ids(self.matching.pad_token + 1, phase.batch, phase.tokens)
        else:
            rows = random_values(phase.batch, 3, self.image.side, self.image.side)
        return lambda: self.run(rows)

    def run(self, rows: Array, mask: Array | None = None) -> Array:
        """Embed images ``(batch, 3, side, side)``, or token ids ``(batch, length)``.

        Args:
            rows: images or token ids.
            mask: mask of the ids, 0 for padding; None for a batch without.

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
        return unit(np.concatenate([self.run(read_pixels(part, self.image)) for part in parts]))

    def embed_texts(self, texts: Sequence[str], batch: int = 4 * _BATCH) -> Array:
        """Compute one unit vector for each text, ``(texts, features)`` float32."""
        assert self.tokenizer is not None, "these graphs were opened without a tokenizer"
        read = tokenized(texts, self.tokenizer, self.matching)
        parts = [slice(start, start + batch) for start in range(0, len(texts), batch)]
        return unit(np.concatenate([self.run(read.ids[part], read.mask[part]) for part in parts]))

    def logits(self, images: Array, texts: Array) -> Array:
        """Compare unit vectors of images with those of texts, ``(images, texts)``."""
        found: Array = self.matching.scale * (images @ texts.T) + self.matching.bias
        return found
