"""T5: relative positions as a bias of the scores, RMS norms, no biases, one table of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.encoder_decoder import trace_pair_with_transformers
from .tracing.inputs import source_and_target_batch
from .tracing.routes import fuse_with_transformers

if TYPE_CHECKING:
    from transformers import T5Config

TRAINED_TOKENS = 512  # mT5: its configuration does not say it


def tiny_sizes(**changes: Any) -> dict[str, Any]:
    """Return sizes of one encoder block and two decoder blocks, distinct on every axis."""
    return {
        "vocab_size": 160,
        "d_model": 48,
        "d_kv": 16,
        "d_ff": 80,
        "num_layers": 1,
        "num_decoder_layers": 2,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "n_positions": 72,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **changes,
    }


def tiny_t5() -> T5Config:
    """Configure the plain feed-forward of the first T5."""
    from transformers import T5Config

    return T5Config(**tiny_sizes())


def longest_text(config: Any) -> int:
    """Return the length it was trained for, tokens: relative positions have no limit."""
    return int(getattr(config, "n_positions", None) or TRAINED_TOKENS)


T5 = Exporter(
    model_types=("t5",),
    tasks=("text2text-generation",),
    trace=trace_pair_with_transformers,
    fuse=fuse_with_transformers,
    example_inputs=source_and_target_batch,
    tiny_config=tiny_t5,
    keep_dense=("lm_head",),
    tied_pairs=(
        ("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"),
        ("layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"),
        ("layer.1.DenseReluDense.wi_1", "layer.1.DenseReluDense.wo"),
        ("layer.2.DenseReluDense.wi_1", "layer.2.DenseReluDense.wo"),
    ),
    intermediate_size="d_ff",
    longest_text=longest_text,
)
EXPORTERS.register("t5")(T5)
