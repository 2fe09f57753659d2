"""GGUF files as Hugging Face folders: weights in float32, and all that the metadata says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import InputError
from edgelr.model.checkpoints.folders import quiet_transformers, require_complete, save_plain
from edgelr.model.checkpoints.gguf_files import (
    merge,
    metadata_of,
    open_parts,
    parts_of,
    readable,
    require_all_tensors,
    tensors_of,
)
from edgelr.model.checkpoints.gguf_metadata import GgufModel, configure, read_model
from edgelr.model.checkpoints.gguf_rotary import TENSORS, require_frequencies, set_rotary
from edgelr.model.checkpoints.gguf_tokenizer import read_tokenizer, remove_further_tokens
from edgelr.model.exporter import exporter_for

WHOLE = "whole.gguf"


def from_gguf(path: Path, cache: Cache) -> Path:
    """Keep a GGUF file's weights, dequantized to float32, as a Hugging Face folder.

    Args:
        path: file, or any part of a model that was split.
        cache: cache that keeps the folder.

    Raises:
        InputError: the file is broken, or says something that is not understood.
    """
    parts = parts_of(path)
    readers = open_parts(parts)
    require_all_tensors(readers, path)
    model = read_model(path, metadata_of(readers), tensors_of(readers))
    config = _configuration(model, parts[0])
    _require_understood(config, model)  # before all bytes are read, for their hash
    key = digest("gguf", file_digest(parts))

    def build(folder: Path) -> None:
        _build(model, config, parts, readers, folder)

    return cache.stage("model", key, build)[0]


def _build(
    model: GgufModel, config: Any, parts: list[Path], readers: list[Any], folder: Path
) -> None:
    """Write the folder of a model whose metadata are understood."""
    path = model.path
    tokenizer = read_tokenizer(parts[0], model)
    whole = path
    if len(parts) > 1:
        whole = folder / WHOLE
        merge(readers, whole)
    with readable(path):
        module, found = _read(whole, config)
    require_complete(found, str(path))
    require_frequencies(module, model)
    save_plain(module, tokenizer, folder)
    remove_further_tokens(folder, model)
    (folder / WHOLE).unlink(missing_ok=True)


def _configuration(model: GgufModel, first: Path) -> Any:
    """Read the configuration as transformers does, and add what it leaves away."""
    with readable(model.path), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(
            first.parent, gguf_file=first.name, local_files_only=True
        )
    exporter_for(config.model_type)
    with readable(model.path):
        configure(config, model)
        set_rotary(config, model)
    return config


def _require_understood(config: Any, model: GgufModel) -> None:
    """Refuse tensors that the model has no place for, and types that gguf does not decode."""
    import gguf

    with readable(model.path), torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
        known = get_gguf_hf_weights_map(module, TensorProcessor())
    unknown = sorted(name for name in model.tensors if name not in known and name not in TENSORS)
    if unknown:
        raise InputError(
            f"{model.path} has {len(unknown):,} tensors for which {type(module).__name__} of "
            f"transformers has no place: {', '.join(unknown[:3])}. Expected weights of the "
            f"architecture {model.architecture} alone. Give the original model."
        )
    for kind, tensor in {each.tensor_type: each for each in model.tensors.values()}.items():
        try:
            gguf.dequantize(tensor.data[:1], kind)
        except NotImplementedError as error:
            raise InputError(
                f"{model.path} holds {tensor.name} as {kind.name}, which the package gguf does not "
                f"decode; expected another type, such as Q4_K, Q8_0 or F16. Give another file of "
                f"the model."
            ) from error
    tokens = len(model.values.get("tokenizer.ggml.tokens") or ())
    if tokens > config.vocab_size:
        last = model.values["tokenizer.ggml.tokens"][config.vocab_size]
        raise InputError(
            f"{model.path} has {tokens:,} tokens, and {config.vocab_size:,} rows in its table of "
            f"embeddings: {last!r} ({config.vocab_size}) is the first without one. Expected a row "
            f"for each. Convert the model again, after model.resize_token_embeddings."
        )


def _read(path: Path, config: Any) -> tuple[Any, dict[str, Any]]:
    """Read the weights, and which were found."""
    auto_class: Any = transformers.AutoModelForCausalLM
    with quiet_transformers():
        model, found = auto_class.from_pretrained(
            path.parent,
            gguf_file=path.name,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are named
        )
    return model, found
