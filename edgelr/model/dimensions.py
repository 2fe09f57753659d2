"""The sizes of a model that decide about memory and time."""

from __future__ import annotations

from typing import Any

from edgelr.core.dimensions import ModelShape
from edgelr.core.tasks import TASKS
from edgelr.model.loaded import LoadedModel


def shape_of(model: LoadedModel) -> tuple[ModelShape, int]:
    """Read the sizes that decide about memory, and the longest sequence that the model takes."""
    config: Any = model.module.config
    if model.exporter.shape is not None:
        named = model.exporter.shape(config)
        return ModelShape(**named, kv_heads=0, vocab_size=0), _longest(config, model)
    pairs = TASKS.get(model.task).has_pairs
    sizes = _named_alike(config, model.image is not None or pairs)
    heads = sizes.num_attention_heads
    widen = model.exporter.intermediate_size
    generates = model.task == "text-generation" or pairs
    longest = _longest(config, model)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    shape = ModelShape(
        layers=_decoder_layers(config) if pairs else sizes.num_layers,
        hidden_size=sizes.hidden_size,
        intermediate_size=getattr(config, widen) if isinstance(widen, str) else widen(config),
        attention_heads=heads,
        kv_heads=kv_heads if generates else 0,
        head_size=getattr(config, "head_dim", None) or sizes.hidden_size // heads,
        vocab_size=sizes.vocab_size if TASKS.get(model.task).answers_tokens else 0,
        source_tokens=(model.sound.tokens if model.sound else longest) if pairs else 0,
    )
    return shape, longest


def _decoder_layers(config: Any) -> int:
    """T5's name for it, and that of everyone else."""
    return int(getattr(config, "num_decoder_layers", None) or config.decoder_layers)


def _named_alike(config: Any, usual: bool) -> Any:
    """Give sizes one name each; most models that do not decode text alone have the usual ones."""
    from optimum.utils import NormalizedConfigManager, NormalizedTextConfig

    if usual:
        return NormalizedTextConfig(config)
    try:
        return NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        return NormalizedTextConfig(config)


def _longest(config: Any, model: LoadedModel) -> int:
    """The longest sequence: what the positions allow, and what a decoder's graph sees of it.

    The builder of decoders leaves sliding windows out, which change nothing up to their length.
    """
    if model.image is not None:
        return model.image.tokens
    if model.exporter.longest_text is not None:
        return model.exporter.longest_text(config)
    longest = int(config.max_position_embeddings)
    if model.exporter.positions_after_padding:
        longest -= config.pad_token_id + 1
    window = getattr(config, "sliding_window", None) if model.task == "text-generation" else None
    return min(longest, window or longest)
