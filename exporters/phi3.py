"""Phi-3 decoders: query, key and value in one linear, and gate with up in another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .gpt_neox import GPT_NEOX
from .llama import tiny_sizes

if TYPE_CHECKING:
    from transformers import Phi3Config


def tiny_phi3() -> Phi3Config:
    """Configure heads of 16, a size that this class computes from the hidden size."""
    from transformers import Phi3Config

    return Phi3Config(**tiny_sizes(num_attention_heads=3, num_key_value_heads=1))


PHI3 = replace(
    GPT_NEOX,
    model_types=("phi3",),
    tiny_config=tiny_phi3,
    tied_pairs=(),
)
EXPORTERS.register("phi3")(PHI3)
