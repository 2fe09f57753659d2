"""What the metadata of a GGUF file says of a model, key by key; what is not understood ends a run.

transformers reads sizes, and leaves the rest away in silence: scaled rotary positions, windows,
caps of logits. Here is the one list of keys that are read, by transformers or by us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from edgelr.core.errors import InputError

# Groups of keys that do not change what a model computes.
HARMLESS = ("GGUF.", "general.", "tokenizer.", "quantize.", "split.")
# Keys of an architecture, and the attribute of a configuration that has the same meaning.
ATTRIBUTES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "use_parallel_residual": "use_parallel_residual",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
OTHER_NAMES = {"intermediate_size": "n_inner"}  # GPT-2's
# Keys that are only understood with the value that they usually have.
USUAL = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "embedding_scale": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (1.0,),
    "pooling_type": (0,),
    "residual_scale": (1.0,),
}
# Tokens that a configuration names; those of the class itself belong to another model.
SPECIAL = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}
NOTES = ("tensor_data_layout", "rope.scaling.finetuned", "vocab_size")
WINDOW = "attention.sliding_window"
HEADS = ("attention.key_length", "attention.value_length", "rope.dimension_count")


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What a GGUF file says beside its weights.

    Attributes:
        path: file, for messages.
        architecture: name of the architecture, the group of its keys.
        values: metadata by key, without the architecture's name in front of its own.
        tensors: tensors by name, as gguf reads them.
    """

    path: Path
    architecture: str
    values: Mapping[str, Any]
    tensors: Mapping[str, Any]

    def refused(self, key: str, why: str) -> InputError:
        """Make the error that names a key and its value."""
        return InputError(
            f"{self.path} has {self.architecture}.{key} = {self.values.get(key)!r}, {why}. "
            f"Expected metadata that edgelr understands (docs/models.md). Give the original model."
        )


def read_model(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> GgufModel:
    """Separate what belongs to the architecture.

    Raises:
        InputError: the file holds no model of its own.
    """
    kind = metadata.get("general.type", "model")
    architecture = str(metadata.get("general.architecture"))
    if kind != "model":
        raise InputError(
            f"{path} is a GGUF file of the type {kind!r} (general.type); expected a model. Give "
            f"the model that it belongs to."
        )
    others = [key for key in metadata if not key.startswith((*HARMLESS, f"{architecture}."))]
    if others:
        raise InputError(
            f"{path} has {others[0]} = {metadata[others[0]]!r}, which edgelr does not understand; "
            f"expected keys of {architecture} and {', '.join(HARMLESS)}. Give the original model."
        )
    values = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    model = GgufModel(path, architecture, values, tensors)
    for key in own_keys(model):
        if key in ATTRIBUTES and isinstance(values[key], list):
            raise model.refused(key, "a size for each block")
    return model


def own_keys(model: GgufModel) -> list[str]:
    """List the keys of the architecture."""
    return [key for key in model.values if not key.startswith(HARMLESS)]


def configure(config: Any, model: GgufModel) -> None:
    """Put into a configuration what transformers left away, but for rotary positions.

    Args:
        config: configuration as transformers reads it from the file; it is changed.
        model: file.

    Raises:
        InputError: a key is not understood, or the architecture cannot express it.
    """
    mapped: Any = GGUF_CONFIG_MAPPING.get(config.model_type, {})
    for key in own_keys(model):
        value = model.values[key]
        if key in ATTRIBUTES:
            _set(config, model, key, value)
        elif key in USUAL:
            if value not in USUAL[key]:
                raise model.refused(key, f"which means {USUAL[key][0]!r} here")
        elif key in HEADS or key in NOTES or key == WINDOW or key.startswith("rope."):
            continue  # read below, or in gguf_rotary
        elif mapped.get(key) is None:
            raise model.refused(key, "which is not understood")
    _set_window(config, model)
    _set_heads(config, model)
    _set_from_tensors(config, model)
    for name, key in SPECIAL.items():
        setattr(config, name, model.values.get(f"tokenizer.ggml.{key}"))


def _set(config: Any, model: GgufModel, key: str, value: Any) -> None:
    """Set one attribute, under the name that the configuration has for it."""
    name = ATTRIBUTES[key]
    name = name if hasattr(config, name) else OTHER_NAMES.get(name, name)
    if hasattr(config, name):
        setattr(config, name, value)
    elif not (key == "attention.head_count_kv" and value == config.num_attention_heads):
        raise model.refused(key, f"which {type(config).__name__} cannot express")


def _set_window(config: Any, model: GgufModel) -> None:
    """Set the sliding window, where it is shorter than the context."""
    window = int(model.values.get(WINDOW) or 0)
    if not 0 < window < config.max_position_embeddings:
        if hasattr(config, "sliding_window") and not hasattr(config, "layer_types"):
            config.sliding_window = None
    elif not hasattr(config, "sliding_window") or getattr(config, "layer_types", None):
        raise model.refused(WINDOW, f"which {type(config).__name__} cannot express")
    else:
        config.sliding_window = window


def _set_heads(config: Any, model: GgufModel) -> None:
    """Set the size of a head, which is that of keys and of values."""
    usual = config.hidden_size // config.num_attention_heads
    size = int(model.values.get("attention.key_length") or usual)
    if int(model.values.get("attention.value_length") or size) != size:
        raise model.refused("attention.value_length", f"while keys have {size}")
    if hasattr(config, "head_dim") or size != usual:
        config.head_dim = size


def _set_from_tensors(config: Any, model: GgufModel) -> None:
    """Set what the tensors tell: rows of the table, and whether linears have biases."""
    table = model.tensors.get("token_embd.weight")
    if table is not None:
        config.vocab_size = int(table.shape[1])
    for attribute, name in (("attention_bias", "attn_q"), ("mlp_bias", "ffn_gate")):
        if hasattr(config, attribute):
            setattr(config, attribute, f"blk.0.{name}.bias" in model.tensors)
