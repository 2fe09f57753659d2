"""StableLM decoders: Llama with LayerNorm, and rotary positions in a quarter of every head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import StableLmConfig


def tiny_stablelm() -> StableLmConfig:
    """Configure heads of 16, a size that this class computes from the hidden size."""
    from transformers import StableLmConfig

    return StableLmConfig(**tiny_sizes(num_attention_heads=3, num_key_value_heads=1))


STABLELM = replace(
    GPT_NEOX,
    model_types=("stablelm",),
    tiny_config=tiny_stablelm,
    tied_pairs=(("mlp.up_proj", "mlp.down_proj"),),
)
EXPORTERS.register("stablelm")(STABLELM)
