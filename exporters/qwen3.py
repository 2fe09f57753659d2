"""Qwen3 decoders: Llama with norms on the heads of query and key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import EVERY_TASK, LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import Qwen3Config


def tiny_qwen3() -> Qwen3Config:
    """Configure the sizes that all decoders share."""
    from transformers import Qwen3Config

    return Qwen3Config(**tiny_sizes())


QWEN3 = replace(LLAMA, tasks=EVERY_TASK, model_types=("qwen3",), tiny_config=tiny_qwen3)
EXPORTERS.register("qwen3")(QWEN3)
