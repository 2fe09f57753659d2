"""The table of token embeddings of a model, and the heads that are tied to it."""

from __future__ import annotations

from torch import nn

from edgelr.core.sites import LinearSite
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import BLOCK_SIZE
from edgelr.model.loaded import LoadedModel


def find_table(model: LoadedModel) -> LinearSite | None:
    """Describe the table as the linear that a tied head is: from hidden states to logits.

    None where images are read, where an encoder and a decoder have one table in two graphs, and
    where the row length is not a multiple of ``BLOCK_SIZE``: ONNX Runtime reads the padding of the
    last block.
    """
    if model.image is not None or TASKS.get(model.task).has_pairs:
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
