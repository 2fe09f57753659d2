"""Rows of encoders of images: images, spread over a list of files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.errors import InputError
from edgelr.data.calibration import from_images
from edgelr.data.file_lists import IMAGES, spread_evenly
from edgelr.data.images import list_images, read_pixels
from edgelr.data.text import PROMPTS, Texts
from edgelr.model.losses.image_encoder import image_of
from edgelr.stages.transformers.rows import ROWS, Excerpt, ModalityRows
from edgelr.stages.transformers.text_selection import choose_files

if TYPE_CHECKING:
    from edgelr.core.dimensions import ModelShape
    from edgelr.core.settings import Settings
    from edgelr.core.vocabulary import Array
    from edgelr.data.calibration import Calibration
    from edgelr.device.profile import DeviceProfile
    from edgelr.model.loaded import LoadedModel
    from edgelr.stages.transformers.subject import ModelSubject

USUAL_IMAGES = 256  # to calibrate on, and to plan on: every one has one loss


class ImageEncoderRows(ModalityRows):
    """Images, each of as many tokens as any other."""

    def require_lengths(self, model: LoadedModel, settings: Settings) -> None:
        """Refuse lengths: an image has one, which is not asked for."""
        asked = {"context": settings.context_tokens}
        asked["calibration-length"] = settings.calibration_length
        for name, tokens in asked.items():
            if tokens is not None:
                raise InputError(
                    f"--{name} asks for {tokens:,} tokens; {model.source} takes "
                    f"{model.longest_text:,} for every image. Leave the option away."
                )

    def workload(
        self, model: LoadedModel, settings: Settings, device: DeviceProfile
    ) -> tuple[DeviceProfile, ModelShape, int]:
        tokens = model.longest_text
        return device.reading(tokens), model.dimensions, tokens

    def read(self, source: Path) -> str:
        return list_images(source)

    def choose(self, model: LoadedModel, settings: Settings) -> Texts:
        return choose_files(IMAGES, self.read, settings.calibration, settings.evaluation)

    def usual_tokens(self, model: LoadedModel, tokens: int) -> int:
        return USUAL_IMAGES * image_of(model).tokens

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        """Read as many images as have the tokens that are asked for."""
        model, image = subject.model, image_of(subject.model)
        paths = spread_evenly(excerpt.text, math.ceil(excerpt.tokens / image.tokens))
        pixels = read_pixels(paths, image)
        return from_images(pixels, image.tokens, excerpt.name, model.prompts)

    def parity_inputs(
        self, subject: ModelSubject, calibration: Sequence[Calibration]
    ) -> list[Array]:
        """Give pixels ``(3, side, side)`` of a few images that calibrate."""
        return list(calibration[0].inputs[: len(PROMPTS)])


ROWS.register("image_encoder")(ImageEncoderRows())
