"""Phi decoders, versions 1 and 2: parallel blocks, partly rotary heads, a bias on the output."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import PhiConfig


def tiny_phi() -> PhiConfig:
    """Configure attention heads of 16, and an untied output head."""
    from transformers import PhiConfig

    return PhiConfig(
        **tiny_sizes(num_attention_heads=3, num_key_value_heads=3, tie_word_embeddings=False)
    )


PHI = replace(
    GPT_NEOX,
    model_types=("phi",),
    tiny_config=tiny_phi,
    tied_pairs=(("mlp.fc1", "mlp.fc2"),),
)
EXPORTERS.register("phi")(PHI)
