"""The protocol of a modality in torch, and the registry of those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

import torch
from torch.nn import functional

from edgelr.core.registry import Registry
from edgelr.core.tasks import TASKS, decides_each_label
from edgelr.model.losses.distances import pool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.core.dimensions import ModelShape
    from edgelr.core.inputs import ImageInput, SoundInput
    from edgelr.core.vocabulary import Array, Task
    from edgelr.data.calibration import Calibration
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel

Inputs: TypeAlias = Any
"""Tensor of a batch's rows, or several in a value such as ``core.inputs.SourceAndTarget``."""


class SitePositions(NamedTuple):
    """Positions at which a linear runs.

    Attributes:
        per_token: positions for each token that is counted.
        of_source: True for positions of a source or of prompts, see ``LinearSite``.
    """

    per_token: float = 1.0
    of_source: bool = False


class SourcePositions(NamedTuple):
    """Positions of a batch that are not those of its counted tokens: of sources, or of prompts.

    Attributes:
        real: mask, true where there is no padding, ``(rows, positions)``.
        tokens: number of counted tokens for each of these positions.
    """

    real: Tensor
    tokens: float


class ModalityLoss(Protocol):
    """Behaviour of one modality when a model is loaded, run and differentiated in torch.

    The defaults are those of an encoder of texts; a subclass says what is different.

    Lifecycle:
        1. A model is loaded: ``fields``, ``dimensions``; its sites are found: ``positions``.
        2. Statistics are collected: ``source``, ``with_few_prompts``, ``differentiable``.
        3. Answers are compared: ``named_inputs``, ``compared``, ``decided``, ``next_tokens``.
        4. Answers are written for the graph to be compared with: ``reference_rows``.

    Attributes:
        options: further arguments of a forward pass whose answers are compared.
        has_table: True where the precision of the table of token embeddings can be chosen.
        cuts_rows: True where a row may be cut into pieces that are read alone.
        reads_prompts: True where each row is read together with prompts: gradients are taken of one
            row at a time.
        reference_name: name of an answer in the file of reference answers.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    has_table: ClassVar[bool] = False
    cuts_rows: ClassVar[bool] = False
    reads_prompts: ClassVar[bool] = False
    reference_name: ClassVar[str] = "output"

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read the fields of ``LoadedModel`` that only this modality has.

        Args:
            module: transformers model, which may be changed in place.
            folder: Hugging Face folder of the model.
            exporter: family of the model.
            task: task that it is loaded for.

        Raises:
            InputError: the folder does not tell, or asks for what edgelr cannot repeat.
        """
        return {}

    def dimensions(
        self, config: Any, exporter: Exporter, task: Task, read: ImageInput | SoundInput | None
    ) -> tuple[ModelShape, int]:
        """Read the sizes that decide about memory, and the longest sequence in tokens.

        Args:
            config: configuration of the model.
            exporter: family of the model.
            task: task that it is loaded for.
            read: preparation of its images or sounds, if it reads these.
        """
        ...

    def example_size(self, model: LoadedModel, tokens: int) -> int:
        """Last argument of ``Exporter.example_inputs``: tokens, or the side of an image."""
        return tokens

    def positions(
        self, model: LoadedModel, given: dict[str, Tensor], shape: torch.Size
    ) -> SitePositions | None:
        """Tell at which positions a linear runs, from the shape of its output.

        Args:
            model: model that runs.
            given: arguments of the forward pass.
            shape: leading sizes of the linear's output, all but its features.

        Returns:
            None where these are not the positions of every token: the linear is no site.
        """
        return SitePositions() if shape == given["input_ids"].shape else None

    def named_inputs(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
        """Name the arguments of a forward pass; see ``losses.named_inputs``."""
        return self.source_inputs(inputs, mask)

    def source_inputs(self, source: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Name the arguments that an encoder reads, or a model that is no more than one."""
        return {"input_ids": source, "attention_mask": mask}

    def differentiable(
        self, model: LoadedModel, inputs: Inputs, mask: Tensor
    ) -> AbstractContextManager[dict[str, Tensor]]:
        """Give the same arguments, while something that they become wants a gradient.

        Parameters want none.
        """
        embed: nn.Module = model.module.get_input_embeddings()  # type: ignore[operator]
        embedded: Tensor = embed(inputs)
        return nullcontext({"inputs_embeds": embedded.requires_grad_(), "attention_mask": mask})

    def compared(self, model: LoadedModel, output: Any, mask: Tensor) -> Tensor:
        """Take the compared answers from a model's output; see ``losses.answers``."""
        traits = TASKS.get(model.task)
        found: Tensor = getattr(output, model.output)
        if traits.loss == "embedding":  # float64: cosines near 1 are compared
            pooled = found if model.sentence_layers else pool(found, mask, model.pooling)
            return functional.normalize(pooled.double(), dim=-1)
        if traits.loss == "score":
            return found.double() / model.score_deviation
        if traits.loss != "label":
            return found
        config: Any = model.module.config
        if decides_each_label(config.problem_type, config.num_labels):
            return torch.stack((found, torch.zeros_like(found)), dim=-1)
        return found[:, None]

    def decided(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
        """Tell which tokens have a loss, ``(rows, length)``."""
        return mask.bool()

    def next_tokens(self, inputs: Inputs, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Give the tokens that the first logits of each row predict, and which are no padding.

        Returns:
            Token ids and a mask, both ``(rows, length)``.
        """
        return inputs[:, 1:], mask[:, 1:].bool()

    def with_few_prompts(self, model: LoadedModel, generator: torch.Generator) -> LoadedModel:
        """Draw some of the prompts, where a model is given too many for one gradient."""
        return model

    def source(
        self, model: LoadedModel, part: Calibration, inputs: Inputs, mask: Tensor
    ) -> SourcePositions | None:
        """Tell which positions are read by the sites that ``reads_source``.

        Args:
            model: model that runs.
            part: calibration text that the batch is from.
            inputs: inputs of the batch.
            mask: mask of the batch.
        """
        return None

    def by_row(self, model: LoadedModel, per_token: float, values: Tensor) -> Tensor:
        """Sum values over the positions that have one loss together.

        Args:
            model: model that ran.
            per_token: positions of the site for each token, see ``LinearSite``.
            values: values at every position, ``(..., positions, n)``.

        Returns:
            ``(losses, n)``.
        """
        return values.sum(1) if TASKS.get(model.task).by_row else values.flatten(0, -2)

    def reference_rows(
        self, model: LoadedModel, prompts: Sequence[Array], new_tokens: int
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Name inputs as the file of reference answers does, and make a batch of one of each.

        Args:
            model: model that answers.
            prompts: inputs of a row each, without the axis of the batch.
            new_tokens: length of an answer, where tokens are generated.

        Returns:
            Arrays of the file, and the batches.
        """
        name = str(model.module.main_input_name)
        named = {f"{name}_{index}": prompt for index, prompt in enumerate(prompts)}
        return named, [torch.tensor(prompt[None]) for prompt in prompts]

    def random_rows(
        self, model: LoadedModel, lengths: Sequence[int]
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Draw one input of each length, tokens, for the dense graph; see ``reference_rows``."""
        name = str(model.module.main_input_name)
        drawn = [model.example_inputs(1, tokens)[name][0].numpy() for tokens in lengths]
        return self.reference_rows(model, drawn, 0)

    def reference_answer(self, model: LoadedModel, row: Inputs) -> Tensor:
        """Compute the output of the model's graph for a batch of one."""
        real = torch.ones(len(row), row.shape[-1], dtype=torch.long)
        answered = model.module(**self.named_inputs(model, row, real))
        found: Tensor = getattr(answered, model.output)
        return found


LOSSES: Registry[ModalityLoss] = Registry(
    "loss", package="edgelr.model.losses", group="edgelr.losses"
)
