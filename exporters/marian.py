"""Marian translators: BART's blocks with fixed positions; padding is never generated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bart import BART, tiny_sizes

if TYPE_CHECKING:
    from transformers import MarianConfig


def tiny_marian() -> MarianConfig:
    """Configure a decoder whose texts begin with the padding token."""
    from transformers import MarianConfig

    sizes = tiny_sizes(decoder_start_token_id=0, decoder_vocab_size=160)
    return MarianConfig(**sizes)


MARIAN = replace(BART, model_types=("marian",), tiny_config=tiny_marian)
EXPORTERS.register("marian")(MARIAN)
