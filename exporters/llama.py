"""Llama-style decoders: rotary attention, gated MLP, no biases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.inputs import padded_text_batch, token_batch
from .tracing.routes import (
    fuse_with_transformers,
    trace_decoder,
    trace_with_genai_builder,
    trace_with_transformers,
)

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from edgelr.core.vocabulary import Task


def tiny_sizes(**changes: Any) -> dict[str, Any]:
    """Return sizes of two blocks with grouped-query attention, distinct on every axis."""
    return {
        "vocab_size": 160,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,  # the CPU kernel of GroupQueryAttention takes multiples of 16
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **changes,
    }


def tiny_llama() -> LlamaConfig:
    """Configure the sizes that all decoders share."""
    from transformers import LlamaConfig

    return LlamaConfig(**tiny_sizes())


def traced(exporter: Exporter) -> Exporter:
    """Declare the same family, traced instead of built."""
    return replace(
        exporter, trace=trace_decoder, fuse=fuse_with_transformers, node_names=(), retrace=None
    )


def without_cache(module: Any) -> None:
    """Let a module keep no keys and values: nothing is written behind what it reads."""
    module.config.use_cache = False


def reading(exporter: Exporter) -> Exporter:
    """Declare the same family as an encoder, whose tokens look at those before them."""
    return replace(
        exporter,
        trace=trace_with_transformers,
        fuse=fuse_with_transformers,
        retrace=None,
        reading=None,
        prepare=without_cache,
        example_inputs=padded_text_batch,
        node_names=(),
        cache_in_place=False,
    )


LLAMA = Exporter(
    model_types=("llama",),
    tasks=("text-generation",),
    trace=trace_with_genai_builder,
    retrace=traced,
    reading=reading,
    example_inputs=token_batch,
    tiny_config=tiny_llama,
    keep_dense=("lm_head",),
    node_names=(("self_attn", "attn"),),
    tied_pairs=(("mlp.up_proj", "mlp.down_proj"),),
    cache_in_place=True,
)
BOTH_TASKS: tuple[Task, ...] = ("text-generation", "feature-extraction")
EXPORTERS.register("llama")(replace(LLAMA, tasks=BOTH_TASKS))
