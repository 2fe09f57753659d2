"""RoBERTa encoders, XLM-RoBERTa and CamemBERT: BERT whose positions begin after the padding's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .bert import BERT, tiny_sizes

if TYPE_CHECKING:
    from transformers import RobertaConfig


def tiny_roberta() -> RobertaConfig:
    """Configure padding with id 0, so that the positions of tokens begin at 1."""
    from transformers import RobertaConfig

    return RobertaConfig(**tiny_sizes(), pad_token_id=0, type_vocab_size=1)


ROBERTA = replace(
    BERT,
    model_types=("roberta", "xlm-roberta", "camembert"),
    tiny_config=tiny_roberta,
    positions_after_padding=True,
)
EXPORTERS.register("roberta")(ROBERTA)
