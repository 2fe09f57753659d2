"""Qwen2 and Qwen2.5 decoders: Llama with biases on query, key and value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import EVERY_TASK, LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import Qwen2Config


def tiny_qwen2() -> Qwen2Config:
    """Configure heads of 16, a size that this class computes from the hidden size."""
    from transformers import Qwen2Config

    return Qwen2Config(**tiny_sizes(num_attention_heads=3, num_key_value_heads=1))


QWEN2 = replace(LLAMA, tasks=EVERY_TASK, model_types=("qwen2",), tiny_config=tiny_qwen2)
EXPORTERS.register("qwen2")(QWEN2)
