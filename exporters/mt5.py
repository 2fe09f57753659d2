"""Multilingual T5: gated feed-forward pairs, as T5 has since its version 1.1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .t5 import T5, tiny_sizes

if TYPE_CHECKING:
    from transformers import MT5Config


def tiny_mt5() -> MT5Config:
    """Configure T5's sizes with a gated feed-forward."""
    from transformers import MT5Config

    return MT5Config(**tiny_sizes(feed_forward_proj="gated-gelu"))


MT5 = replace(T5, model_types=("mt5",), tiny_config=tiny_mt5)
EXPORTERS.register("mt5")(MT5)
