"""An encoder that reads a source, and a decoder that predicts each token of a target from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from edgelr.core.inputs import SourceAndTarget
from edgelr.data.calibration import SourceCalibration
from edgelr.model.dimensions import longest_text, read_shape, usual_sizes
from edgelr.model.generate import answer
from edgelr.model.losses import (
    LOSSES,
    Inputs,
    ModalityLoss,
    SitePositions,
    SourcePositions,
    answers,
)
from edgelr.model.losses.embeddings import embedding_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.core.dimensions import ModelShape
    from edgelr.core.vocabulary import Array, Task
    from edgelr.data.calibration import Calibration
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel


TARGET_TOKENS = 192  # of the random targets on which a dense graph is compared


class EncoderDecoderLoss(ModalityLoss):
    """One loss for every token of a target, wherever a site is: at the source, or at the target."""

    options: ClassVar[Mapping[str, Any]] = {"use_cache": False}

    def dimensions(
        self, config: Any, exporter: Exporter, task: Task, read: Any
    ) -> tuple[ModelShape, int]:
        """Read the sizes of the decoder; the encoder reads as many positions as it has."""
        longest = longest_text(config, exporter)
        layers = (
            getattr(config, "num_decoder_layers", None) or config.decoder_layers
        )  # T5's, BART's
        source_tokens = longest if read is None else read.tokens
        sizes = usual_sizes(config)
        shape = read_shape(config, exporter, task, sizes, True, layers, source_tokens)
        return shape, longest

    def positions(
        self, model: LoadedModel, given: dict[str, Tensor], shape: torch.Size
    ) -> SitePositions | None:
        if shape == given["decoder_input_ids"].shape:
            return SitePositions()
        return SitePositions(of_source=True) if shape == self.source_shape(model, given) else None

    def source_shape(self, model: LoadedModel, given: dict[str, Tensor]) -> torch.Size:
        """Rows and positions of the source."""
        return given["input_ids"].shape

    def named_inputs(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
        source = self.source_inputs(inputs.source, inputs.source_mask)
        return {**source, "decoder_input_ids": inputs.target[:, :-1]}

    @contextmanager
    def differentiable(
        self, model: LoadedModel, inputs: Inputs, mask: Tensor
    ) -> Iterator[dict[str, Tensor]]:
        with embedding_gradients(model.module):
            yield self.named_inputs(model, inputs, mask)

    def next_tokens(self, inputs: Inputs, mask: Tensor) -> tuple[Tensor, Tensor]:
        return inputs.target[:, 1:], mask.bool()

    def source(
        self, model: LoadedModel, part: Calibration, inputs: Inputs, mask: Tensor
    ) -> SourcePositions:
        assert isinstance(part, SourceCalibration)
        return SourcePositions(inputs.source_mask.bool(), part.tokens / part.source_tokens)

    def by_row(self, model: LoadedModel, per_token: float, values: Tensor) -> Tensor:
        """Sum over a whole row: positions are of two lengths."""
        return values.sum(1)

    def reference_rows(
        self, model: LoadedModel, prompts: Sequence[Array], new_tokens: int
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Give every source its greedy target."""
        return _named(
            [_answered(model, torch.tensor(prompt[None]), new_tokens) for prompt in prompts]
        )

    def random_rows(
        self, model: LoadedModel, lengths: Sequence[int]
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Draw sources and targets: what a model answers to noise may end with its first token."""
        name = str(model.module.main_input_name)
        sources = [model.example_inputs(1, tokens)[name] for tokens in lengths]
        twice = 2 * min(TARGET_TOKENS, max(lengths))  # tokens of which a target has half, and one
        targets = [model.example_inputs(1, twice)["decoder_input_ids"] for _ in lengths]
        return _named(
            [
                SourceAndTarget(source, torch.ones(source.shape[:2], dtype=torch.int64), target)
                for source, target in zip(sources, targets, strict=True)
            ]
        )

    def reference_answer(self, model: LoadedModel, row: Inputs) -> Tensor:
        return answers(model, row, row.source_mask)


def _named(rows: list[Inputs]) -> tuple[dict[str, Array], list[Inputs]]:
    """Name the arrays of rows as the file of reference answers does."""
    sources = {f"source_{index}": row.source[0].numpy() for index, row in enumerate(rows)}
    targets = {f"target_{index}": row.target[0].numpy() for index, row in enumerate(rows)}
    return sources | targets, rows


def _answered(model: LoadedModel, source: Tensor, new_tokens: int) -> SourceAndTarget:
    mask = torch.ones(source.shape[:2], dtype=torch.int64)
    return SourceAndTarget(source, mask, torch.tensor(answer(model, source, mask, new_tokens)))


LOSSES.register("encoder_decoder")(EncoderDecoderLoss())
