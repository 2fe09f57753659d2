"""DeBERTa encoders, versions 2 and 3: attention on relative positions, with projections shared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT, tiny_sizes

if TYPE_CHECKING:
    from transformers import DebertaV2Config


def tiny_deberta() -> DebertaV2Config:
    """Configure the options of the published version 3 models."""
    from transformers import DebertaV2Config

    return DebertaV2Config(
        **tiny_sizes(
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=16,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
        )
    )


DEBERTA = replace(
    BERT,
    model_types=("deberta-v2",),
    tiny_config=tiny_deberta,
    load_options=(),  # it has no pooler
)
EXPORTERS.register("deberta")(DEBERTA)
