"""Encoders of images: an embedding or a label for every image."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgelr.core.inputs import ImageInput
from edgelr.core.tasks import TASKS
from edgelr.model.convolutions import fold_normalizations
from edgelr.model.dimensions import read_shape, usual_sizes
from edgelr.model.losses import LOSSES, Inputs, ModalityLoss, SitePositions
from edgelr.model.processors import image_input

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.core.dimensions import ModelShape
    from edgelr.core.vocabulary import Task
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel


class ImageEncoderLoss(ModalityLoss):
    """One loss for every image, which has as many tokens as any other."""

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read how images are prepared, and fold normalizations into convolutions."""
        image = image_input(module, folder)
        if exporter.convolutions:
            fold_normalizations(module, exporter.example_inputs(module.config, 1, image.side))
        embeds = TASKS.get(task).loss == "embedding"
        return {"image": image, "pooling": exporter.pooling if embeds else None}

    def dimensions(
        self, config: Any, exporter: Exporter, task: Task, read: Any
    ) -> tuple[ModelShape, int]:
        return read_shape(config, exporter, task, usual_sizes(config)), read.tokens

    def example_size(self, model: LoadedModel, tokens: int) -> int:
        return image_of(model).side

    def positions(
        self, model: LoadedModel, given: dict[str, Tensor], shape: torch.Size
    ) -> SitePositions | None:
        """Count the positions of an image: its tokens, windows, or another resolution.

        What runs once for an image is left out: there are too few images for a Gram.
        """
        images, count = len(given["pixel_values"]), shape.numel()
        if count <= images or shape[0] % images:
            return None
        return SitePositions(count / (images * image_of(model).tokens))

    def named_inputs(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": inputs}

    def differentiable(
        self, model: LoadedModel, inputs: Inputs, mask: Tensor
    ) -> AbstractContextManager[dict[str, Tensor]]:
        return nullcontext({"pixel_values": inputs.detach().requires_grad_()})

    def by_row(self, model: LoadedModel, per_token: float, values: Tensor) -> Tensor:
        """Sum over an image, whose windows lie one after another."""
        positions = round(image_of(model).tokens * per_token)
        return values.reshape(-1, positions, values.shape[-1]).sum(1)


def image_of(model: LoadedModel) -> ImageInput:
    """The preparation of an image that the model reads."""
    assert model.image is not None
    return model.image


LOSSES.register("image_encoder")(ImageEncoderLoss())
