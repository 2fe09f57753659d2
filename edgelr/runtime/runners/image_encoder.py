"""Run the graph of an image model: hidden states or logits, vectors or labels of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config
from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput
from edgelr.core.tasks import TASKS, decides_each_label
from edgelr.core.vocabulary import Array
from edgelr.data.images import read_pixels
from edgelr.runtime.runners.encoder import Pooling, each_decision, output_of, pooled
from edgelr.runtime.session import Session, open_session

_BATCH = 8


class ImageEncoder:
    """A graph from pixels to hidden states or logits, and what turns image files into pixels.

    Args:
        session: a graph with the input ``pixel_values``, and an output ``last_hidden_state``, or
            else its first output.
        image: how files are prepared.
        pooling: ``"mean"`` over all tokens, or the vector of the first, ``"cls"``.
        decides_each_label: see ``tasks.decides_each_label``.

    Raises:
        InputError: the graph has other inputs.
    """

    input_name = "pixel_values"

    def __init__(
        self,
        session: Session,
        image: ImageInput,
        pooling: Pooling = "cls",
        decides_each_label: bool = False,
    ) -> None:
        self.session, self.image, self.pooling = session, image, pooling
        self._decides_each_label = decides_each_label
        self._output = output_of(session)
        if set(session.inputs) != {self.input_name}:
            raise InputError(
                f"{session.path} is no image model that edgelr can run: its inputs are "
                f"{sorted(session.inputs)}. Expected {self.input_name}. Export the model with "
                f"edgelr."
            )

    @classmethod
    def open(
        cls, bundle: ExportBundle, provider: str = "cpu", threads: int | None = None
    ) -> ImageEncoder:
        """Open the image model of a bundle."""
        config, manifest = read_config(bundle), bundle.manifest
        assert manifest.image is not None, "this bundle reads text"
        labels = len(config.get("id2label", ()))
        return cls(
            open_session(bundle.model_path, provider, threads),
            manifest.image,
            manifest.pooling or "cls",
            TASKS.get(manifest.task).loss == "label"
            and decides_each_label(config.get("problem_type"), labels),
        )

    def run(self, pixels: Array) -> Array:
        """Compute what the graph answers to ``(batch, 3, side, side)``.

        Returns:
            Hidden states ``(batch, tokens, features)`` or logits ``(batch, labels)``, float32.
        """
        (found,), _ = self.session.run({self.input_name: pixels}, [self._output])
        return found.astype(np.float32, copy=False)

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run images ``(3, side, side)`` as one batch; return what each is answered."""
        return list(self.run(np.stack(rows)))

    def embed(self, paths: Sequence[Path], batch: int = _BATCH) -> Array:
        """Compute one unit vector for each image file, ``(images, features)`` float32."""
        return np.concatenate(
            [
                pooled(hidden, np.ones(hidden.shape[:2], np.int64), self.pooling)
                for hidden in self._outputs(paths, batch)
            ]
        )

    def decide(self, paths: Sequence[Path], batch: int = _BATCH) -> Array:
        """Compute the logits of every decision, ``(decisions, classes)`` float32.

        A decision is the label of an image; where one may have several, each of them is one
        between yes and no.
        """
        found = np.concatenate(list(self._outputs(paths, batch)))
        return each_decision(found) if self._decides_each_label else found

    def _outputs(self, paths: Sequence[Path], batch: int) -> Iterator[Array]:
        for start in range(0, len(paths), batch):
            yield self.run(read_pixels(paths[start : start + batch], self.image))
