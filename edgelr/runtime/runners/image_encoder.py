"""Image encoders: hidden states or logits of pixels, vectors or labels of image files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config
from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput
from edgelr.core.tasks import TASKS, decides_each_label
from edgelr.core.vocabulary import Array, Pooling
from edgelr.data.images import read_pixels
from edgelr.data.labels import folder_labels
from edgelr.runtime.evaluators import Known
from edgelr.runtime.graphs import open_graph, random_values
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
from edgelr.runtime.runners.forward import (
    each_decision,
    forward_phases,
    output_of,
    pooled,
    vector_of,
)

if TYPE_CHECKING:
    from edgelr.runtime.session import Session

_BATCH = 8
_PIXELS = "pixel_values"


@RUNNERS.register("image_encoder")
class ImageEncoderRunner(Runner):
    """A graph from pixels to hidden states or logits, and how image files become pixels.

    Args:
        session: graph with the input ``pixel_values``, and an output ``last_hidden_state``, or
            else its first output.
        image: preparation of files.
        pooling: way to one vector: ``"mean"`` of all tokens, or the first, ``"cls"``.
        decides_each_label: whether several labels may be true: see ``tasks.decides_each_label``.

    Raises:
        InputError: the graph has other inputs.
    """

    answer_names = ("pixel_values_0", "output_0")

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
        if set(session.inputs) != {_PIXELS}:
            raise InputError(
                f"{session.path} is no image model that edgelr can run: its inputs are "
                f"{sorted(session.inputs)}. Expected {_PIXELS}. Export the model with "
                f"edgelr."
            )

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> ImageEncoderRunner:
        """Open the image model of a bundle; it has no tokenizer."""
        config, manifest = read_config(bundle), bundle.manifest
        assert manifest.image is not None, "this bundle reads text"
        labels = len(config.get("id2label", ()))
        return cls(
            open_graph(bundle, execution),
            manifest.image,
            manifest.pooling or "cls",
            TASKS.get(manifest.task).loss == "label"
            and decides_each_label(config.get("problem_type"), labels),
        )

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List runs of one image and of several."""
        return forward_phases(bundle.manifest.context_tokens)

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Read one batch."""
        tokens = bundle.manifest.context_tokens
        return CappedRuns((TimedPhase("forward", sizes.batch, tokens),), tokens, tokens)

    def samples(self, evaluation: Evaluation) -> list[Path] | Known:
        """List image files, with labels where their folders name them."""
        images, labels = images_of(evaluation), None
        if evaluation.original.manifest.task == "image-classification":
            labels = folder_labels(images, read_config(evaluation.original))
        return images if labels is None else Known(images, np.array(labels))

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw pixels."""
        pixels = random_values(phase.batch, 3, self.image.side, self.image.side)
        return lambda: self.run(pixels)

    def run(self, pixels: Array) -> Array:
        """Compute what the graph answers to ``(batch, 3, side, side)``.

        Returns:
            Hidden states ``(batch, tokens, features)`` or logits ``(batch, labels)``, float32.
        """
        (found,), _ = self.session.run({_PIXELS: pixels}, [self._output])
        return found.astype(np.float32, copy=False)

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run images ``(3, side, side)`` as one batch; return the answer to each."""
        return list(self.run(np.stack(rows)))

    def vector(self, output: Array) -> Array:
        return vector_of(output, self.pooling)

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
