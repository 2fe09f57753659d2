"""ELECTRA encoders: BERT with embeddings narrower than its blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT, tiny_sizes

if TYPE_CHECKING:
    from transformers import ElectraConfig


def tiny_electra() -> ElectraConfig:
    """Configure embeddings of 32, which are widened to 48."""
    from transformers import ElectraConfig

    return ElectraConfig(**tiny_sizes(), embedding_size=32)


ELECTRA = replace(
    BERT,
    model_types=("electra",),
    tiny_config=tiny_electra,
    load_options=(),  # it has no pooler
)
EXPORTERS.register("electra")(ELECTRA)
