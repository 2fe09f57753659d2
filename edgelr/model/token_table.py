"""The table of token embeddings of a model, and the heads that are tied to it."""

from __future__ import annotations

from torch import nn

from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import BLOCK_SIZE
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import loss_of


def find_table(model: LoadedModel) -> LinearSite | None:
    """Describe the table as the linear that a tied head is: from hidden states to logits.

    None where no graph has the table for itself, and where the row length is not a multiple of
    ``BLOCK_SIZE``: ONNX Runtime reads the padding of the last block.
    """
    if not loss_of(model).has_table:
        return None
    table = token_table(model)
    if table.weight.shape[1] % BLOCK_SIZE:
        return None
    name = next(name for name, each in model.module.named_modules() if each is table)
    vocabulary, hidden = table.weight.shape
    return LinearSite(name, hidden, vocabulary, False, name.rpartition(".")[2], None, name)


def tied_heads(model: LoadedModel) -> dict[str, nn.Module]:
    """Find the linears that multiply with the table, by name."""
    table = token_table(model)
    return {
        name: module
        for name, module in model.module.named_modules()
        if isinstance(module, nn.Linear) and module.weight is table.weight
    }


def token_table(model: LoadedModel) -> nn.Embedding:
    """Find the table of token embeddings."""
    table = model.module.get_input_embeddings()  # type: ignore[operator]
    assert isinstance(table, nn.Embedding)
    return table
