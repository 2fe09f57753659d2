"""ModernBERT encoders: rotary positions, windows in most blocks, gated MLP, packed q|k|v."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT, tiny_sizes

if TYPE_CHECKING:
    from transformers import ModernBertConfig


def tiny_modernbert() -> ModernBertConfig:
    """Configure one block of each kind of attention, with a window shorter than a text."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        **tiny_sizes(
            global_attn_every_n_layers=2,
            local_attention=16,
            pad_token_id=0,
            bos_token_id=1,
            cls_token_id=1,
            eos_token_id=2,
            sep_token_id=2,
        )
    )


MODERNBERT = replace(
    BERT,
    model_types=("modernbert",),
    tiny_config=tiny_modernbert,
    tied_pairs=(),
    load_options=(),  # it has no pooler
)
EXPORTERS.register("modernbert")(MODERNBERT)
