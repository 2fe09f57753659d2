"""DistilBERT encoders: BERT without token types and pooler, under other names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT

if TYPE_CHECKING:
    from transformers import DistilBertConfig


def tiny_distilbert() -> DistilBertConfig:
    """Configure the sizes of the tiny BERT, under the names of this configuration."""
    from transformers import DistilBertConfig

    return DistilBertConfig(
        vocab_size=160,
        dim=48,
        hidden_dim=80,
        n_layers=2,
        n_heads=6,
        max_position_embeddings=72,
    )


DISTILBERT = replace(
    BERT,
    model_types=("distilbert",),
    tiny_config=tiny_distilbert,
    intermediate_size="hidden_dim",
    tied_pairs=(("ffn.lin1", "ffn.lin2"),),
    load_options=(),  # it has no pooler
)
EXPORTERS.register("distilbert")(DISTILBERT)
