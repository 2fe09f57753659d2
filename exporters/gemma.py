"""Gemma decoders, the first version: scaled embeddings, norms that add one to their weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import GemmaConfig


def tiny_gemma() -> GemmaConfig:
    """Configure heads whose size is not the hidden size divided by their number."""
    from transformers import GemmaConfig

    return GemmaConfig(**tiny_sizes())


GEMMA = replace(
    GPT_NEOX,
    model_types=("gemma",),
    tiny_config=tiny_gemma,
    tied_pairs=(("mlp.up_proj", "mlp.down_proj"),),
)
EXPORTERS.register("gemma")(GEMMA)
