"""GGUF files of tiny decoders, written as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

SIZES = {  # of a configuration, and the architecture's keys for them
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "n_inner": "feed_forward_length",
    "use_parallel_residual": "use_parallel_residual",
    "sliding_window": "attention.sliding_window",
}
EPSILONS = {
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "norm_epsilon": "attention.layer_norm_epsilon",
}
INTERLEAVED = ("llama",)  # rotary weights, where others leave the halves of a head as they are


def write_gguf(
    module: Any,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    kinds: Sequence[str] = ("F32",),
    parts: int = 1,
) -> Path:
    """Write a decoder, a Mistral as a Llama.

    Args:
        module: model in torch.
        path: path of the file; of parts, the stem of their names.
        metadata: further keys with floats, integers, booleans or texts as values; None leaves a
            key away that would be written.
        tensors: further tensors.
        kinds: types of the matrices, in turns; vectors stay float32.
        parts: number of files that the tensors are split into.

    Returns:
        Path of the file, or of the first part.
    """
    rows = [*_weights(module), *(tensors or {}).items()]
    told = {**_metadata(module.config), **(metadata or {})}
    files = [path]
    if parts > 1:
        name = f"{path.stem}-{{:05d}}-of-{parts:05d}.gguf"
        files = [path.with_name(name.format(number + 1)) for number in range(parts)]
    for number, file in enumerate(files):
        writer = gguf.GGUFWriter(file, architecture_of(module.config))
        for key, value in (told if number == 0 else {}).items():
            _add(writer, key, value)
        if parts > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(rows))
        for index, (name, array) in enumerate(rows):
            kind = gguf.GGMLQuantizationType[kinds[index % len(kinds)] if array.ndim > 1 else "F32"]
            stored = gguf.quantize(array, kind)
            if index % parts == number:
                writer.add_tensor(name, stored, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files[0]


def architecture_of(config: Any) -> str:
    """Name the architecture of a configuration as llama.cpp does."""
    return "llama" if config.model_type == "mistral" else str(config.model_type)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _metadata(config: Any) -> dict[str, Any]:
    sizes = {key: getattr(config, e) for e, key in SIZES.items() if hasattr(config, e)}
    sizes |= {key: float(getattr(config, e)) for e, key in EPSILONS.items() if hasattr(config, e)}
    rotary = getattr(config, "rope_parameters", None)
    if rotary is not None:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        sizes["rope.freq_base"] = float(rotary["rope_theta"])
        sizes["rope.dimension_count"] = int(head * rotary.get("partial_rotary_factor", 1.0))
    rare = [f"<{index}>" for index in range(config.vocab_size - 3)]
    return {
        **{f"{architecture_of(config)}.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*rare, "a", "b", "ab"],
        "tokenizer.ggml.token_type": [1] * config.vocab_size,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _weights(module: Any) -> list[tuple[str, np.ndarray]]:
    """List tensors by llama.cpp's names; a Llama's rotary weights interleave a head's halves."""
    config = module.config
    architecture = gguf.MODEL_ARCH[architecture_of(config).upper()]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found = []
    for name, weight in module.state_dict().items():
        array = weight.numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if architecture_of(config) in INTERLEAVED and ("q_proj" in name or "k_proj" in name):
            halves = array.reshape(-1, 2, config.head_dim // 2, *array.shape[1:])
            array = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
        stem, _, ending = name.rpartition(".")
        found.append((f"{names.get_name(stem)}.{ending}", array))
    return found
