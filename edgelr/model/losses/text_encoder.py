"""Encoders of texts: an embedding or a label for a text, or a label for each of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.data.padding import padding_token
from edgelr.model.dimensions import longest_text, named_sizes, read_shape
from edgelr.model.losses import LOSSES, Inputs, ModalityLoss
from edgelr.model.losses.embeddings import embedding_gradients
from edgelr.model.sentence_layers import add_layers
from edgelr.model.sentence_modules import dense_layers_of, pooling_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.core.dimensions import ModelShape
    from edgelr.core.vocabulary import Task
    from edgelr.model.exporter import Exporter
    from edgelr.model.loaded import LoadedModel


class TextEncoderLoss(ModalityLoss):
    """One loss for every text, for every token, or for every token that is masked."""

    has_table = True

    def fields(
        self, module: nn.Module, folder: Path, exporter: Exporter, task: Task
    ) -> dict[str, Any]:
        """Read how tokens are pooled, or which one is the mask.

        Where layers stand behind the pooling, the graph does both.
        """
        loss = TASKS.get(task).loss
        if loss == "mask_label":
            return {"mask_token": mask_token_of(folder)}
        if loss != "embedding":
            return {}
        pooling, layers = pooling_of(folder), dense_layers_of(folder)
        if not layers:
            return {"pooling": pooling}
        return {"sentence_layers": add_layers(module, pooling, layers)}

    def dimensions(
        self, config: Any, exporter: Exporter, task: Task, read: Any
    ) -> tuple[ModelShape, int]:
        shape = read_shape(config, exporter, task, named_sizes(config))
        return shape, longest_text(config, exporter)

    def named_inputs(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
        return text_inputs(model.module.config, inputs, mask)

    @contextmanager
    def differentiable(
        self, model: LoadedModel, inputs: Inputs, mask: Tensor
    ) -> Iterator[dict[str, Tensor]]:
        """Let the embeddings want a gradient: heads of decoders read the ids as well."""
        with embedding_gradients(model.module):
            yield self.named_inputs(model, inputs, mask)

    def decided(self, model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
        real = mask.bool()
        return real if model.mask_token is None else real & (inputs == model.mask_token)


def text_inputs(config: Any, inputs: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Name ids, and which of two texts each is of; what is padding, the model has to know itself.

    Args:
        config: configuration of the model.
        inputs: token ids ``(rows, length)``, or pairs of texts ``(rows, 2, length)``.
        mask: 1 for real tokens, ``(rows, length)``.
    """
    ids, *types = inputs.unbind(1) if inputs.ndim == 3 else (inputs,)
    given = {"input_ids": ids.masked_fill(mask == 0, padding_token(config.pad_token_id))}
    if types:
        given["token_type_ids"] = types[0]
    return {**given, "attention_mask": mask}


def mask_token_of(folder: Path) -> int:
    """Read which token stands for one that is to be filled in.

    Raises:
        InputError: the folder has no tokenizer, or its tokenizer names no such token.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found = tokenizer.mask_token_id
    except (OSError, ValueError):
        found = None
    if found is None:
        raise InputError(
            f"The model in {folder} fills in masked tokens, but has no tokenizer that names its "
            f"mask token; expected one with mask_token. Save it beside the model, or give --task "
            f"feature-extraction to leave the head away."
        )
    return int(found)


LOSSES.register("text_encoder")(TextEncoderLoss())
