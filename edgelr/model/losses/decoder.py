"""Decoders: they read a text, and predict each of its tokens from those before it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional

from edgelr.data.padding import left_padded, right_padded
from edgelr.model.dimensions import longest_text, named_sizes, read_shape
from edgelr.model.losses import LOSSES, Inputs, ModalityLoss

if TYPE_CHECKING:
    from edgelr.core.dimensions import ModelShape
    from edgelr.core.vocabulary import Array, Task
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel


class DecoderLoss(ModalityLoss):
    """One loss for every token, which is predicted from those before it."""

    options: ClassVar[Mapping[str, Any]] = {"use_cache": False}
    has_table = True
    cuts_rows = True
    reference_name = "logits"

    def dimensions(
        self, config: Any, exporter: Exporter, task: Task, read: Any
    ) -> tuple[ModelShape, int]:
        """Read the sizes; a sliding window ends the longest sequence.

        The builder of decoders leaves sliding windows out, which change nothing up to their length.
        """
        longest = longest_text(config, exporter)
        window = getattr(config, "sliding_window", None)
        shape = read_shape(config, exporter, task, named_sizes(config), has_cache=True)
        return shape, min(longest, window or longest)

    def reference_rows(
        self, model: LoadedModel, prompts: Sequence[Array], new_tokens: int
    ) -> tuple[dict[str, Array], list[Inputs]]:
        """Pad the prompts to one array, and add their greedy continuations."""
        padded, mask = right_padded(prompts)
        greedy = continued(model, prompts, new_tokens)
        named = {"prompts": padded, "lengths": mask.sum(axis=1), "greedy": greedy}
        return named, [torch.tensor(prompt[None]) for prompt in prompts]


def continued(model: LoadedModel, prompts: Sequence[Array], new_tokens: int) -> Array:
    """Continue prompts that are read together greedily, ``(prompts, new_tokens)``."""
    module = model.module
    step, mask = map(torch.tensor, left_padded(prompts, 0))
    counts_positions = "position_ids" in inspect.signature(module.forward).parameters
    tokens, past = torch.zeros(len(prompts), 0, dtype=torch.int64), None
    while tokens.shape[1] < new_tokens:
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -step.shape[1] :]
        output = module(
            input_ids=step,
            attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            **({"position_ids": positions} if counts_positions else {}),
        )
        step, past = output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values
        tokens = torch.cat((tokens, step), -1)
        mask = functional.pad(mask, (0, 1), value=1)
    found: Array = tokens.numpy()
    return found


LOSSES.register("decoder")(DecoderLoss())
