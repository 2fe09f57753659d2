"""T5: relative positions as a bias of the scores, RMS norms, no biases, one table of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import Exporter
from exporters.tracing.encoder_decoder import trace_encoder_decoder
from exporters.tracing.inputs import source_and_target_batch
from exporters.tracing.routes import fuse_with_transformers

if TYPE_CHECKING:
    from transformers import T5Config

TRAINED_TOKENS = 512  # of mT5, whose configuration does not say it


def tiny_sizes(**changes: Any) -> dict[str, Any]:
    """One block of an encoder, two of a decoder; no two axes have one size."""
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
    """With the plain feed-forward of the first T5."""
    from transformers import T5Config

    return T5Config(**tiny_sizes())


def longest_text(config: Any) -> int:
    """The length that it was trained for: relative positions themselves have no end."""
    return int(getattr(config, "n_positions", None) or TRAINED_TOKENS)


T5 = Exporter(
    model_types=("t5",),
    tasks=("text2text-generation",),
    trace=trace_encoder_decoder,
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
