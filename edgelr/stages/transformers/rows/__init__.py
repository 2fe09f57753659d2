"""Rows: how the data of a run are chosen and cut, for each modality.

What differs between modalities is in the files of this package, one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.data.text import PROMPTS, Texts, read_text
from edgelr.model.dimensions import require_lengths

if TYPE_CHECKING:
    from edgelr.core.dimensions import ModelShape
    from edgelr.core.run import Run
    from edgelr.core.settings import Settings
    from edgelr.core.vocabulary import Array
    from edgelr.data.calibration import Calibration
    from edgelr.device.profile import DeviceProfile
    from edgelr.model.loaded import LoadedModel
    from edgelr.planning.recipes import Recipe
    from edgelr.stages.transformers.subject import ModelSubject


@dataclass(frozen=True)
class Excerpt:
    """Part of a text, or of a list of files, that rows are cut from.

    Attributes:
        text: text, or list of files.
        tokens: number of tokens of all rows, about.
        name: name of the text, for the report.
        length: tokens of a row; None takes what is usual.
    """

    text: str
    tokens: int
    name: str
    length: int | None = None


class ModalityRows(Protocol):
    """Behaviour of one modality when the data of a run are chosen and cut into rows.

    The defaults are those of a model that reads one text; a subclass says what is different.

    Lifecycle:
        1. The settings are checked: ``require_lengths``, ``workload``, ``require``.
        2. The data are chosen: ``read``, ``choose``, ``with_prompts``.
        3. Rows are cut: ``usual_tokens`` of them, by ``calibration`` and ``judging``.
        4. A few are compared in torch and in ONNX Runtime: ``parity_inputs``.

    Attributes:
        graphs: noun for two graphs, for messages; empty for models of one.
        selection_length: longest row of what plans are judged on, tokens; None cuts as usual.
    """

    graphs: ClassVar[str] = ""
    selection_length: ClassVar[int | None] = None

    def require_lengths(self, model: LoadedModel, settings: Settings) -> None:
        """Refuse rows that the model cannot read.

        Raises:
            InputError: the settings ask for such rows.
        """
        asked = {"context-tokens": settings.context_tokens}
        asked["calibration-length"] = settings.calibration_length
        require_lengths(asked, model.longest_text, model.source)

    def workload(
        self, model: LoadedModel, settings: Settings, device: DeviceProfile
    ) -> tuple[DeviceProfile, ModelShape, int]:
        """Size the device's workload, the model and the context for the model's inputs."""
        context = settings.context_tokens or min(device.context_tokens, model.longest_text)
        source_tokens = min(model.dimensions.source_tokens, context)
        return device, replace(model.dimensions, source_tokens=source_tokens), context

    def require(self, model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
        """Refuse what is not made for such models.

        Raises:
            InputError: the settings or the recipe ask for it, or the model's folder lacks a file.
        """
        return

    def read(self, source: Path) -> str:
        """Read a text, or list the files of a source.

        Raises:
            InputError: it cannot be read, or is empty.
        """
        return read_text(source)

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        """Choose the texts, or the files, that a run is about.

        Raises:
            InputError: they cannot be read, or are too few.
        """
        ...

    def with_prompts(self, model: LoadedModel, settings: Settings, texts: Texts) -> LoadedModel:
        """Give the prompts of a run to a model that compares images with them.

        Raises:
            InputError: labels are asked for, and the model has no prompts.
        """
        if settings.labels is not None:
            raise InputError(
                f"--labels is for models that compare images with texts; {model.source} is for "
                f"{model.task}. Leave the option away."
            )
        return model

    def usual_tokens(self, model: LoadedModel, tokens: int) -> int:
        """Give ``tokens`` of text, or those of the usual number of images or sounds."""
        return tokens

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        """Cut an excerpt into rows as the model reads them."""
        ...

    def calibration(self, subject: ModelSubject, excerpt: Excerpt, run: Run) -> Calibration:
        """Cut an excerpt into rows that calibrate, or find those that were made before."""
        return self.judging(subject, excerpt)

    def parity_inputs(
        self, subject: ModelSubject, calibration: Sequence[Calibration]
    ) -> list[Array]:
        """Give a few inputs of one row each: token ids ``(length,)``, or what calibrates."""
        return [np.array(subject.tokenizer.encode(text).ids) for text in PROMPTS]


ROWS: Registry[ModalityRows] = Registry(
    "rows", package="edgelr.stages.transformers.rows", group="edgelr.rows"
)


def rows_of(model: LoadedModel) -> ModalityRows:
    """Find how the data of a run become rows of a model.

    Raises:
        InputError: no package that is installed reads this modality.
    """
    return ROWS.get(model.modality)
