"""The table of token embeddings of a model, and the heads that are tied to it."""

from __future__ import annotations

from torch import nn

from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import loss_of


def find_table(model: LoadedModel) -> LinearSite | None:
    """Describe the table as the linear that a tied head is: from hidden states to logits.

    None where no graph has the table for itself, and where blocks of no size fill a row: ONNX
    Runtime reads the padding of the last block.
    """
    if not loss_of(model).has_table:
        return None
    table = token_table(model)
    if not table_layouts(table.weight.shape[1]):
        return None
    name = next(name for name, each in model.module.named_modules() if each is table)
    vocabulary, hidden = table.weight.shape
    return LinearSite(name, hidden, vocabulary, False, name.rpartition(".")[2], None, name)


def table_layouts(hidden: int) -> tuple[WeightPrecision, ...]:
    """List the quantized precisions whose blocks fill a row of ``hidden`` numbers."""
    return tuple(name for name, each in LAYOUTS.items() if hidden % each.block_size == 0)


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
