"""GPT-NeoX decoders, as in Pythia: rotary positions in a part of every head, parallel blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt2 import GPT2

if TYPE_CHECKING:
    from transformers import GPTNeoXConfig


def tiny_gpt_neox() -> GPTNeoXConfig:
    """Configure rotary positions in a quarter of every head, and an untied head, as in Pythia."""
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=160,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=128,
        rope_parameters={
            "partial_rotary_factor": 0.25,
            "rope_type": "default",
            "rope_theta": 10000,
        },
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


GPT_NEOX = replace(
    GPT2,
    model_types=("gpt_neox",),
    tiny_config=tiny_gpt_neox,
    prepare=None,
    intermediate_size="intermediate_size",
    tied_pairs=(("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),),
)
EXPORTERS.register("gpt_neox")(GPT_NEOX)
