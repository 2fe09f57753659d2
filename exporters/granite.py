"""Granite decoders: Llama with multipliers on embeddings, attention, residuals and logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import GraniteConfig


def tiny_granite() -> GraniteConfig:
    """Configure four multipliers that differ from one."""
    from transformers import GraniteConfig

    return GraniteConfig(
        **tiny_sizes(),
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.5,
        logits_scaling=2.0,
    )


GRANITE = replace(LLAMA, model_types=("granite",), tiny_config=tiny_granite)
EXPORTERS.register("granite")(GRANITE)
