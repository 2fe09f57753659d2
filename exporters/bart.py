"""BART: learned positions, post-norm blocks, a bias on every linear, one table of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.encoder_decoder import trace_pair_with_transformers
from .tracing.inputs import source_and_target_batch
from .tracing.routes import fuse_with_transformers

if TYPE_CHECKING:
    from transformers import BartConfig


def tiny_sizes(**changes: Any) -> dict[str, Any]:
    """Return sizes of one encoder block and two decoder blocks, distinct on every axis."""
    return {
        "vocab_size": 160,
        "d_model": 48,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "encoder_ffn_dim": 80,
        "decoder_ffn_dim": 80,
        "max_position_embeddings": 72,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "forced_eos_token_id": None,
        "decoder_start_token_id": 2,
        "init_std": 0.1,
        **changes,
    }


def tiny_bart() -> BartConfig:
    """Configure the sizes that BART and its relatives share."""
    from transformers import BartConfig

    return BartConfig(**tiny_sizes())


BART = Exporter(
    model_types=("bart",),
    tasks=("text2text-generation",),
    trace=trace_pair_with_transformers,
    fuse=fuse_with_transformers,
    example_inputs=source_and_target_batch,
    tiny_config=tiny_bart,
    keep_dense=("lm_head",),
    tied_pairs=(("fc1", "fc2"),),
    intermediate_size="decoder_ffn_dim",
)
EXPORTERS.register("bart")(BART)
