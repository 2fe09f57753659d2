"""Checkpoints whose weights are quantized: decoded to float32, or refused by their method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import InputError
from edgelr.model.checkpoints.folders import carried_files, carry, read_config
from edgelr.model.checkpoints.schemes import FLOATS, QuantizedWeight, quantized_weights
from edgelr.model.checkpoints.weights import StoredTensors, weight_files, write_weights
from edgelr.model.exporter import exporter_for
from edgelr.model.first_look import EXPECTED_METHODS, QUANTIZED
from edgelr.model.small_files import CONFIG

_INDICES = ("I64", "I32", "I16", "BOOL")  # of buffers that are no weights
_MASKS = (".attn.bias", ".attention.bias", ".masked_bias")  # of GPT-2 and GPT-NeoX, as bytes
_PACKED = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "absmax")


def dequantized(folder: Path, cache: Cache) -> Path:
    """Give a folder of floats for one that may be quantized.

    Args:
        folder: Hugging Face folder; one without quantized weights is returned as it is.
        cache: cache that keeps the decoded folder.

    Raises:
        InputError: it is quantized in a way that is not read.
    """
    config = read_config(folder)
    told = next((config[each] for each in QUANTIZED if config.get(each)), None)
    stored = StoredTensors(folder)
    if told is None:
        _require_floats(stored, set())
        return folder
    weights = quantized_weights(told, stored)
    if not stored.headers:
        return folder  # of pickles, which are refused when the folder is loaded
    _require_floats(stored, {part for weight in weights for part in weight.parts})
    exporter_for(str(config.get("model_type")))  # before the work, not after it
    files = [*carried_files(folder), *weight_files(folder)]
    key = digest("dequantized", [path.name for path in files], file_digest(files))
    return cache.stage("model", key, lambda out: _write(stored, weights, config, out))[0]


def _write(
    stored: StoredTensors, weights: list[QuantizedWeight], config: dict[str, Any], out: Path
) -> None:
    plain = {name: value for name, value in config.items() if name not in QUANTIZED}
    plain["dtype"] = "float32"
    plain.pop("torch_dtype", None)
    (out / CONFIG).write_text(json.dumps(plain, indent=2) + "\n")
    carry(stored.folder, out)
    write_weights(out, _decoded(stored, weights, _unused_zeros(stored, weights, out)))


def _decoded(
    stored: StoredTensors, weights: list[QuantizedWeight], left_out: set[str]
) -> Iterator[tuple[str, Tensor]]:
    """Give every tensor in float32, the quantized ones decoded."""
    first = {weight.parts[0]: weight for weight in weights}
    rest = {part for weight in weights for part in weight.parts[1:]} | left_out
    for name in stored.headers:
        if name in first:
            weight = first[name]
            yield weight.name, weight.decode(*map(stored.read, weight.parts))
        elif name not in rest:
            tensor = stored.read(name)
            yield name, tensor.float() if tensor.is_floating_point() else tensor


def _unused_zeros(stored: StoredTensors, weights: list[QuantizedWeight], folder: Path) -> set[str]:
    """List biases of zeros that the model has no place for: GPTQ's writers add one to every linear.

    Args:
        stored: tensors of the checkpoint.
        weights: its quantized weights.
        folder: folder with the plain configuration.
    """
    biases = {f"{weight.name.removesuffix('.weight')}.bias" for weight in weights}
    zeros = {name for name in biases & stored.headers.keys() if not stored.read(name).any()}
    if not zeros:
        return zeros
    config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind: Any = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None:
        return set()
    with torch.device("meta"):
        return zeros - set(kind(config).state_dict())


def _require_floats(stored: StoredTensors, explained: set[str]) -> None:
    """Refuse tensors that only a quantization method can read, and that nothing told explains."""
    for name, header in stored.headers.items():
        last = name.rpartition(".")[2]
        buffer = (header.dtype in _INDICES and last != "weight") or name.endswith(_MASKS)
        packed = last in _PACKED or ".absmax" in name or ".quant_state" in name
        if name not in explained and (packed or not (header.dtype in FLOATS or buffer)):
            raise InputError(
                f"{stored.folder} holds {name} as {header.dtype} of {header.shape}, which its "
                f"quantization_config does not explain; {EXPECTED_METHODS}."
            )
