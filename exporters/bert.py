"""BERT encoders: learned positions, post-norm blocks, a bias on every linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.inputs import padded_text_batch
from .tracing.routes import fuse_with_transformers, trace_with_transformers

if TYPE_CHECKING:
    from transformers import BertConfig


def tiny_sizes(**changes: Any) -> dict[str, Any]:
    """Return sizes of two blocks, distinct on every axis."""
    return {
        "vocab_size": 160,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "max_position_embeddings": 72,
        **changes,
    }


def tiny_bert() -> BertConfig:
    """Configure the sizes that all encoders share."""
    from transformers import BertConfig

    return BertConfig(**tiny_sizes())


BERT = Exporter(
    model_types=("bert",),
    tasks=(
        "feature-extraction",
        "text-ranking",
        "text-classification",
        "token-classification",
        "fill-mask",
    ),
    trace=trace_with_transformers,
    fuse=fuse_with_transformers,
    example_inputs=padded_text_batch,
    tiny_config=tiny_bert,
    keep_dense=("classifier", "decoder", "vocab_projector", "generator_lm_head"),
    tied_pairs=(("intermediate.dense", "output.dense"),),
    # Sentence embeddings pool the last hidden state; the pooler would be dead weight.
    load_options=(("add_pooling_layer", False),),
)
EXPORTERS.register("bert")(BERT)
