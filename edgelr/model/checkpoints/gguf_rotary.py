"""Rotary positions of GGUF files, in transformers' words.

llama.cpp divides the frequencies by one factor (linear), by one for each (``rope_freqs.weight``,
``rope_factors_*.weight``), or interpolates some of them (yarn).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgelr.core.errors import InputError
from edgelr.model.checkpoints.gguf_metadata import GgufModel, own_keys

BASE = 10000.0  # llama.cpp's, where a file tells none
FREQUENCIES = "rope_freqs.weight"
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
TENSORS = (FREQUENCIES, SHORT, LONG)
_SCALING = "rope.scaling."
_LEGACY = "rope.scale_linear"
_ORIGINAL = f"{_SCALING}original_context_length"
_ATTENTION = f"{_SCALING}attn_factor"
_UNDERSTOOD = (
    "rope.dimension_count",
    "rope.freq_base",
    _LEGACY,
    _ORIGINAL,
    _ATTENTION,
    *(f"{_SCALING}{each}" for each in ("type", "factor", "finetuned")),
    *(f"{_SCALING}yarn_{each}" for each in ("beta_fast", "beta_slow", "ext_factor", "attn_factor")),
)


def set_rotary(config: Any, model: GgufModel) -> None:
    """Write the rotary positions of a file into a configuration.

    Args:
        config: configuration with the sizes of the model; it is changed.
        model: file.

    Raises:
        InputError: a key is not understood, or the architecture cannot express it.
    """
    keys = [key for key in own_keys(model) if key.startswith("rope.")]
    unknown = [key for key in keys if key not in _UNDERSTOOD]
    if unknown:
        raise model.refused(unknown[0], "which is not understood")
    if not hasattr(config, "rope_parameters"):
        if keys or any(name in model.tensors for name in TENSORS):
            raise model.refused(keys[0] if keys else "rope", "of a model without rotary positions")
        return
    found = {"rope_theta": float(model.values.get("rope.freq_base") or BASE)}
    found |= _partial(config, model)
    found |= _scaled(config, model)
    if "original_max_position_embeddings" in found and hasattr(
        config, "original_max_position_embeddings"
    ):
        config.original_max_position_embeddings = found["original_max_position_embeddings"]
    config.rope_parameters = found


def require_frequencies(module: Any, model: GgufModel) -> None:
    """Compare the frequencies of a loaded model with those that the file asks for.

    Raises:
        InputError: they are others.
    """
    config = module.config
    parameters = getattr(config, "rope_parameters", None)
    if parameters is None or parameters["rope_type"] == "yarn":
        return
    size = _rotated(config, model)
    factors = parameters.get("short_factor", parameters.get("factor", 1.0))
    base = parameters["rope_theta"]
    wanted = 1.0 / (np.asarray(factors) * base ** (np.arange(0, size, 2) / size))
    found = [part.inv_freq for part in module.modules() if hasattr(part, "inv_freq")]
    if not found or any(
        each.shape != wanted.shape or not np.allclose(each.numpy(), wanted, rtol=1e-5)
        for each in found
    ):
        raise InputError(
            f"{model.path} has rotary positions that {type(module).__name__} of transformers does "
            f"not compute. Expected {size // 2} frequencies. Give the original model."
        )


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None)
    return int(size or config.hidden_size // config.num_attention_heads)


def _rotated(config: Any, model: GgufModel) -> int:
    """Count the features of a head that are rotated."""
    return int(model.values.get("rope.dimension_count") or _head_size(config))


def _partial(config: Any, model: GgufModel) -> dict[str, Any]:
    """Tell which share of a head is rotated."""
    rotated, size = _rotated(config, model), _head_size(config)
    known = "partial_rotary_factor" in (config.rope_parameters or {})
    if rotated == size and not known:
        return {}
    if not known:
        raise model.refused("rope.dimension_count", f"while heads have {size}")
    return {"partial_rotary_factor": rotated / size}


def _scaled(config: Any, model: GgufModel) -> dict[str, Any]:
    """Tell how frequencies are scaled."""
    values = model.values
    kind = str(values.get(f"{_SCALING}type", "linear"))  # llama.cpp's, where only a factor is told
    factor = float(values.get(f"{_SCALING}factor") or values.get(_LEGACY) or 1.0)
    factor = 1.0 if kind == "none" else factor
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise model.refused(f"{_SCALING}type", "which is not understood")
    if SHORT in model.tensors or LONG in model.tensors or kind == "longrope":
        return _of_two_lengths(config, model, factor)
    if kind == "yarn":
        return _yarn(config, model, factor)
    if float(values.get(_ATTENTION, 1.0)) != 1.0:
        raise model.refused(_ATTENTION, f"of positions of the type {kind!r}")
    if FREQUENCIES in model.tensors:
        factors = [factor * each for each in _factors(config, model, FREQUENCIES)]
        return _longrope(factors, factors, 1.0, config.max_position_embeddings)
    return {"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _yarn(config: Any, model: GgufModel, factor: float) -> dict[str, Any]:
    values = model.values
    for name in ("yarn_ext_factor", "yarn_attn_factor"):
        if float(values.get(f"{_SCALING}{name}", 1.0)) != 1.0:
            raise model.refused(f"{_SCALING}{name}", "which is not understood")
    if FREQUENCIES in model.tensors:
        raise model.refused(f"{_SCALING}type", f"together with the tensor {FREQUENCIES}")
    attention = float(values.get(_ATTENTION, 1.0))
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(
            values.get(_ORIGINAL) or config.max_position_embeddings
        ),
        "attention_factor": attention * (1.0 + 0.1 * math.log(max(factor, 1.0))),
        "beta_fast": float(values.get(f"{_SCALING}yarn_beta_fast", 32.0)),
        "beta_slow": float(values.get(f"{_SCALING}yarn_beta_slow", 1.0)),
    }


def _of_two_lengths(config: Any, model: GgufModel, factor: float) -> dict[str, Any]:
    """Read the factors of short texts and of long ones."""
    if SHORT not in model.tensors or LONG not in model.tensors or FREQUENCIES in model.tensors:
        present = [name for name in TENSORS if name in model.tensors]
        raise model.refused(
            f"{_SCALING}type", f"with the tensors {present}, where {SHORT} and {LONG} are needed"
        )
    short, long = (
        [factor * each for each in _factors(config, model, name)] for name in (SHORT, LONG)
    )
    original = int(model.values.get(_ORIGINAL) or config.max_position_embeddings)
    return _longrope(short, long, float(model.values.get(_ATTENTION, 1.0)), original)


def _longrope(
    short: list[float], long: list[float], attention: float, original: int
) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": attention,
        "original_max_position_embeddings": original,
    }


def _factors(config: Any, model: GgufModel, name: str) -> list[float]:
    """Read a tensor of one divisor for each frequency."""
    values = np.asarray(model.tensors[name].data, np.float32).ravel()
    if len(values) != _rotated(config, model) // 2:
        raise InputError(
            f"{model.path} has {len(values)} factors in {name}; expected one for each of the "
            f"{_rotated(config, model) // 2} frequencies. Convert the model again."
        )
    return [float(each) for each in values]
