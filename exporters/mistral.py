"""Mistral decoders: Llama with a sliding window in its first versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import EVERY_TASK, LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import MistralConfig


def tiny_mistral() -> MistralConfig:
    """Configure a window that is shorter than the longest text."""
    from transformers import MistralConfig

    return MistralConfig(**tiny_sizes(), sliding_window=100)


MISTRAL = replace(LLAMA, tasks=EVERY_TASK, model_types=("mistral",), tiny_config=tiny_mistral)
EXPORTERS.register("mistral")(MISTRAL)
