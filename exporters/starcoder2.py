"""StarCoder2 decoders: rotary positions, LayerNorm, biases on every linear."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import Starcoder2Config


def tiny_starcoder2() -> Starcoder2Config:
    """Configure heads of 16, a size that this class computes from the hidden size."""
    from transformers import Starcoder2Config

    return Starcoder2Config(**tiny_sizes(num_attention_heads=3, num_key_value_heads=1))


STARCODER2 = replace(
    GPT_NEOX,
    model_types=("starcoder2",),
    tiny_config=tiny_starcoder2,
    tied_pairs=(("mlp.c_fc", "mlp.c_proj"),),
)
EXPORTERS.register("starcoder2")(STARCODER2)
