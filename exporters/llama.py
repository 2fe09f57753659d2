"""Llama-style decoders: rotary attention, gated MLP, no biases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import InputError
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


def ready_to_read(module: Any) -> None:
    """Let a module keep no keys and values: nothing is written behind what it reads.

    Raises:
        InputError: a head reads the last token that is no padding, and no token is padding.
    """
    from transformers.modeling_layers import GenericForSequenceClassification

    reads_last = isinstance(module, GenericForSequenceClassification)
    if reads_last and module.config.pad_token_id is None:
        raise InputError(
            f"{type(module).__name__} answers at the last token that is no padding, and its "
            f"config.json names no pad_token_id: transformers itself reads one text at a time "
            f"then. Expected the id that the tokenizer pads with. Add pad_token_id to config.json."
        )
    module.config.use_cache = False


def reading(exporter: Exporter) -> Exporter:
    """Declare the same family as an encoder, whose tokens look at those before them."""
    return replace(
        exporter,
        trace=trace_with_transformers,
        fuse=fuse_with_transformers,
        retrace=None,
        reading=None,
        prepare=ready_to_read,
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
    keep_dense=("lm_head", "score"),
    node_names=(("self_attn", "attn"),),
    tied_pairs=(("mlp.up_proj", "mlp.down_proj"),),
    cache_in_place=True,
)
EVERY_TASK: tuple[Task, ...] = (
    "text-generation",
    "feature-extraction",
    "text-ranking",
    "text-classification",
)
EXPORTERS.register("llama")(replace(LLAMA, tasks=EVERY_TASK))
