"""ERNIE 4.5 decoders, the dense ones: Llama blocks without biases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import Ernie4_5Config


def tiny_ernie() -> Ernie4_5Config:
    """Configure the sizes that all decoders share."""
    from transformers import Ernie4_5Config

    return Ernie4_5Config(**tiny_sizes())


ERNIE = replace(LLAMA, model_types=("ernie4_5",), tiny_config=tiny_ernie)
EXPORTERS.register("ernie")(ERNIE)
