"""The sizes of a model that decide about memory and time."""

from __future__ import annotations

from typing import Any

from edgelr.core.dimensions import ModelShape
from edgelr.core.inputs import ImageInput, SoundInput
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.exporter import Exporter


def read_dimensions(
    config: Any,
    exporter: Exporter,
    task: Task,
    image: ImageInput | None = None,
    sound: SoundInput | None = None,
) -> tuple[ModelShape, int]:
    """Read the sizes that decide about memory, and the longest sequence that a model takes.

    Args:
        config: configuration of the model.
        exporter: family of the model.
        task: task that it is loaded for.
        image: preparation of an image, of models that read images.
        sound: preparation of a sound, of models that read sounds.
    """
    longest = _longest(config, exporter, task, image)
    if exporter.shape is not None:
        named = exporter.shape(config)
        return ModelShape(**named, kv_heads=0, vocab_size=0), longest
    pairs = TASKS.get(task).has_pairs
    sizes = _named_alike(config, image is not None or pairs)
    heads = sizes.num_attention_heads
    widen = exporter.intermediate_size
    generates = task == "text-generation" or pairs
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    shape = ModelShape(
        layers=_decoder_layers(config) if pairs else sizes.num_layers,
        hidden_size=sizes.hidden_size,
        intermediate_size=getattr(config, widen) if isinstance(widen, str) else widen(config),
        attention_heads=heads,
        kv_heads=kv_heads if generates else 0,
        head_size=getattr(config, "head_dim", None) or sizes.hidden_size // heads,
        vocab_size=sizes.vocab_size if TASKS.get(task).answers_tokens else 0,
        source_tokens=(sound.tokens if sound else longest) if pairs else 0,
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


def _longest(config: Any, exporter: Exporter, task: Task, image: ImageInput | None) -> int:
    """The longest sequence: what the positions allow, and what a decoder's graph sees of it.

    The builder of decoders leaves sliding windows out, which change nothing up to their length.
    """
    if image is not None:
        return image.tokens
    if exporter.longest_text is not None:
        return exporter.longest_text(config)
    longest = int(config.max_position_embeddings)
    if exporter.positions_after_padding:
        longest -= config.pad_token_id + 1
    window = getattr(config, "sliding_window", None) if task == "text-generation" else None
    return min(longest, window or longest)
