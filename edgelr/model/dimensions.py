"""The sizes of a model that decide about memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.exporter import Exporter


def read_shape(
    config: Any,
    exporter: Exporter,
    task: Task,
    sizes: Any,
    has_cache: bool = False,
    layers: int | None = None,
    source_tokens: int = 0,
) -> ModelShape:
    """Read the sizes of a model of equal blocks; those of others, their family computes.

    Args:
        config: configuration of the model.
        exporter: family of the model.
        task: task that it is loaded for.
        sizes: configuration with one name for each size, see ``named_sizes``.
        has_cache: True where keys and values are kept from token to token.
        layers: blocks that have a cache; None takes those of the configuration.
        source_tokens: positions that an encoder gives to the decoder.
    """
    if exporter.shape is not None:
        return ModelShape(**exporter.shape(config), kv_heads=0, vocab_size=0)
    heads, widen = sizes.num_attention_heads, exporter.intermediate_size
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return ModelShape(
        layers=sizes.num_layers if layers is None else layers,
        hidden_size=sizes.hidden_size,
        intermediate_size=getattr(config, widen) if isinstance(widen, str) else widen(config),
        attention_heads=heads,
        kv_heads=kv_heads if has_cache else 0,
        head_size=getattr(config, "head_dim", None) or sizes.hidden_size // heads,
        vocab_size=sizes.vocab_size if TASKS.get(task).answers_tokens else 0,
        source_tokens=source_tokens,
    )


def usual_sizes(config: Any) -> Any:
    """Give sizes one name each, in a configuration that has the usual names."""
    from optimum.utils import NormalizedTextConfig

    return NormalizedTextConfig(config)


def named_sizes(config: Any) -> Any:
    """Give sizes one name each, whatever names the family has for them."""
    from optimum.utils import NormalizedConfigManager

    try:
        return NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        return usual_sizes(config)


SHORT_TEXT, USUAL_TEXT, LONG_TEXT = 8, 512, 1024  # tokens of what a dense graph is compared on
BEHIND = 64  # tokens behind a length at which a model's positions or windows change


def compared_lengths(config: Any, longest: int) -> list[int]:
    """List the lengths of texts on which a dense graph is compared with its model, tokens.

    Args:
        config: configuration of the model.
        longest: longest text that the model takes.
    """
    rotation = getattr(config, "rope_parameters", None) or {}
    changes = [
        rotation.get("original_max_position_embeddings"),
        getattr(config, "original_max_position_embeddings", None),
        getattr(config, "sliding_window", None),
    ]
    far = max([LONG_TEXT, *(BEHIND + int(change) for change in changes if change)])
    return sorted({min(longest, tokens) for tokens in (SHORT_TEXT, USUAL_TEXT, far)})


def longest_text(config: Any, exporter: Exporter) -> int:
    """Read the longest text that has positions, in tokens."""
    if exporter.longest_text is not None:
        return exporter.longest_text(config)
    longest = int(config.max_position_embeddings)
    return longest - config.pad_token_id - 1 if exporter.positions_after_padding else longest


def require_lengths(asked: Mapping[str, int | None], longest: int, source: str) -> None:
    """Refuse rows that a model cannot read.

    Args:
        asked: lengths of rows, tokens, by option; None where an option is not given.
        longest: longest text that the model takes, tokens.
        source: name of the model, for messages.

    Raises:
        InputError: a row is longer.
    """
    for name, tokens in asked.items():
        if tokens is not None and tokens > longest:
            raise InputError(
                f"--{name} asks for {tokens:,} tokens; {source} takes {longest:,} at most "
                f"(max_position_embeddings). Give a smaller number."
            )
