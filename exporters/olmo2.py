"""OLMo 2 decoders: norms behind attention and feed-forward pair, and on query and key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import Olmo2Config


def tiny_olmo2() -> Olmo2Config:
    """Configure heads of 16, a size that this class computes from the hidden size."""
    from transformers import Olmo2Config

    return Olmo2Config(**tiny_sizes(num_attention_heads=3, num_key_value_heads=1))


OLMO2 = replace(
    GPT_NEOX,
    model_types=("olmo2",),
    tiny_config=tiny_olmo2,
    tied_pairs=(("mlp.up_proj", "mlp.down_proj"),),
)
EXPORTERS.register("olmo2")(OLMO2)
