"""OPT decoders: learned positions, a ReLU between the linears of a feed-forward pair."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt2 import GPT2

if TYPE_CHECKING:
    from transformers import OPTConfig


def tiny_opt() -> OPTConfig:
    """Configure the sizes of the tiny GPT-2, under the names of this configuration."""
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=160,
        hidden_size=48,
        word_embed_proj_dim=48,
        ffn_dim=80,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        init_std=0.1,
    )


OPT = replace(
    GPT2,
    model_types=("opt",),
    tiny_config=tiny_opt,
    prepare=None,
    intermediate_size="ffn_dim",
    tied_pairs=(("fc1", "fc2"),),
)
EXPORTERS.register("opt")(OPT)
