"""Encoders of texts and of images, trained to agree: an image chooses one of several prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgelr.core.inputs import Matching, Prompts
from edgelr.core.tasks import TASKS
from edgelr.model.losses import LOSSES, Inputs, SitePositions, SourcePositions
from edgelr.model.losses.embeddings import embedding_gradients
from edgelr.model.losses.image_encoder import ImageEncoderLoss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.core.vocabulary import Array, Task
    from edgelr.data.calibration import Calibration
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel

PROMPT_TOKENS = 1024  # that an image is compared with at once, where gradients are taken


class DualEncoderLoss(ImageEncoderLoss):
    """One loss for every image: the choice of a prompt. All prompts are read with every image."""

    reads_prompts = True

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read how images are prepared, and how texts are compared with them."""
        of_images = super().fields(module, folder, exporter, task)
        return {**of_images, "matching": _matching(module, exporter)}

    def positions(
        self, model: LoadedModel, given: dict[str, Tensor], shape: torch.Size
    ) -> SitePositions | None:
        if shape == given["input_ids"].shape:
            return SitePositions(of_source=True)
        return super().positions(model, given, shape)

    def named_inputs(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
        assert model.matching is not None
        prompts = prompts_of(model)
        given = {"pixel_values": inputs, "input_ids": torch.as_tensor(prompts.ids)}
        if not model.matching.padded:
            given["attention_mask"] = torch.as_tensor(prompts.mask)
        return given

    @contextmanager
    def differentiable(
        self, model: LoadedModel, inputs: Inputs, mask: Tensor
    ) -> Iterator[dict[str, Tensor]]:
        with embedding_gradients(model.module):
            yield self.named_inputs(model, inputs.detach().requires_grad_(), mask)

    def compared(self, model: LoadedModel, output: Any, mask: Tensor) -> Tensor:
        found: Tensor = getattr(output, TASKS.get(model.task).output)
        return found[:, None]

    def with_few_prompts(self, model: LoadedModel, generator: torch.Generator) -> LoadedModel:
        """Draw some of the prompts where they are many: an image is compared with all at once."""
        prompts = prompts_of(model)
        count, length = prompts.ids.shape
        most = max(2, PROMPT_TOKENS // length)
        if count <= most:
            return model
        drawn = torch.randperm(count, generator=generator)[:most].numpy()
        return replace(model, prompts=Prompts(prompts.ids[drawn], prompts.mask[drawn]))

    def source(
        self, model: LoadedModel, part: Calibration, inputs: Inputs, mask: Tensor
    ) -> SourcePositions:
        """Count the prompts once for a batch: every image of it is read with them."""
        real = torch.as_tensor(prompts_of(model).mask).bool()
        return SourcePositions(real, int(mask.sum()) / int(real.sum()))

    def by_row(self, model: LoadedModel, per_token: float, values: Tensor) -> Tensor:
        """Sum over one image, or over all prompts that it is compared with."""
        return values.reshape(1, -1, values.shape[-1]).sum(1)

    def reference_rows(
        self, model: LoadedModel, prompts: Sequence[Array], new_tokens: int
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Take rows of token ids and of pixels, one for either graph."""
        named = {f"row_{index}": prompt for index, prompt in enumerate(prompts)}
        return named, [torch.tensor(prompt[None]) for prompt in prompts]

    def random_rows(
        self, model: LoadedModel, lengths: Sequence[int]
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Draw images and texts, in turns."""
        given = [model.example_inputs(1, tokens) for tokens in lengths]
        drawn = [each[name][0].numpy() for each in given for name in ("pixel_values", "input_ids")]
        return self.reference_rows(model, drawn, 0)

    def reference_answer(self, model: LoadedModel, row: Inputs) -> Tensor:
        return embedding(model, row)


def embedding(model: LoadedModel, given: Tensor, mask: Tensor | None = None) -> Tensor:
    """Embed texts or images, ``(rows, features)``.

    Args:
        model: model that compares texts with images.
        given: token ids ``(rows, length)``, or pixels ``(rows, 3, side, side)``.
        mask: mask of the ids, ``(rows, length)``; None where all of them are read.
    """
    module: Any = model.module
    if given.is_floating_point():
        output = module.get_image_features(pixel_values=given)
    else:
        output = module.get_text_features(input_ids=given, attention_mask=mask)
    found: Tensor = output.pooler_output
    return found


def prompts_of(model: LoadedModel) -> Prompts:
    """The tokens of the prompts that images are compared with in this run."""
    assert model.prompts is not None
    return model.prompts


def _matching(module: Any, exporter: Exporter) -> Matching:
    """Read how a model compares texts with images."""
    texts = module.config.text_config
    bias = getattr(module, "logit_bias", None)
    return Matching(
        scale=float(module.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
        tokens=int(texts.max_position_embeddings),
        pad_token=int(texts.pad_token_id or 0),
        padded=exporter.pads_texts,
    )


LOSSES.register("dual_encoder")(DualEncoderLoss())
