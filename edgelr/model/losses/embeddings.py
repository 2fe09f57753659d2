"""Gradients of models with several tables of embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def embedding_gradients(module: nn.Module) -> Iterator[None]:
    """Let the output of every table of embeddings want a gradient while the block runs."""

    def want(_module: nn.Module, _args: Any, output: Tensor) -> None:
        output.requires_grad_()

    tables = (each for each in module.modules() if isinstance(each, nn.Embedding))
    handles = [table.register_forward_hook(want) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
