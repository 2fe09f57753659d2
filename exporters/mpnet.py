"""MPNet encoders, as in all-mpnet-base-v2: relative positions beside the learned ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT, tiny_sizes

if TYPE_CHECKING:
    from transformers import MPNetConfig


def tiny_mpnet() -> MPNetConfig:
    """Configure padding with id 1: MPNet keeps positions 0 and 1 for padding, whatever its id."""
    from transformers import MPNetConfig

    return MPNetConfig(**tiny_sizes(), pad_token_id=1)


MPNET = replace(
    BERT,
    model_types=("mpnet",),
    tiny_config=tiny_mpnet,
    positions_after_padding=True,
)
EXPORTERS.register("mpnet")(MPNET)
