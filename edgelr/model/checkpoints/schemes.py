"""Which tensors of a quantized checkpoint make a weight together, for each method that is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgelr.core.errors import InputError
from edgelr.model.checkpoints.layouts import (
    WORD_BITS,
    awq_weight,
    float8_weight,
    gptq_weight,
)
from edgelr.model.checkpoints.weights import StoredTensors, TensorHeader
from edgelr.model.first_look import EXPECTED_METHODS

FLOATS = ("F64", "F32", "F16", "BF16")
FLOAT8 = "F8_E4M3"
_SCALES = ("weight_scale_inv", "weight_scale")
_ACTIVATION_SCALES = ("input_scale", "activation_scale")  # of activations, which stay float here
Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """One weight that is stored in parts.

    Attributes:
        name: name of the plain weight.
        parts: names of the tensors that it is made of; the first stands for its place.
        decode: function of these tensors that gives the weight, ``(out_features, in_features)``.
    """

    name: str
    parts: tuple[str, ...]
    decode: Callable[..., Tensor]


def quantized_weights(told: Told, stored: StoredTensors) -> list[QuantizedWeight]:
    """Find the quantized weights of a checkpoint.

    Args:
        told: ``quantization_config`` of its configuration.
        stored: its tensors.

    Raises:
        InputError: the method is not read, or the tensors do not fit it.
    """
    method = str(told.get("quant_method"))
    if method not in _METHODS:
        raise _refused(stored, method, "it is another method")
    return _METHODS[method](told, stored)


def _refused(stored: StoredTensors, method: str, found: str) -> InputError:
    return InputError(f"{stored.folder} is quantized by {method}, and {found}; {EXPECTED_METHODS}.")


def _require(
    told: Told, stored: StoredTensors, method: str, accepted: Mapping[str, tuple[Any, ...]]
) -> None:
    """Refuse settings that make another layout; what is not told has its usual value."""
    for key, values in accepted.items():
        found = told.get(key)
        if (found.lower() if isinstance(found, str) else found) not in (None, *values):
            raise _refused(stored, method, f"its {key} is {found!r}")


def _gptq(told: Told, stored: StoredTensors) -> list[QuantizedWeight]:
    accepted = {
        "bits": (2, 4, 8),
        "checkpoint_format": ("gptq", "gptq_v2"),
        "pack_dtype": ("int32",),
        "is_marlin_format": (False,),
        "rotation": (False, ""),
    }
    _require(told, stored, "gptq", accepted)
    bits = told.get("bits")
    if bits is None:
        raise _refused(stored, "gptq", "its bits are not told")
    offset = 0 if str(told.get("checkpoint_format")).lower() == "gptq_v2" else 1
    size = int(told.get("group_size") or -1)
    desc_act = bool(told.get("desc_act"))
    stems = _stems(stored, ".qweight")
    return [_gptq_weight(stored, stem, (bits, offset, size), desc_act) for stem in stems]


def _gptq_weight(
    stored: StoredTensors, stem: str, layout: tuple[int, int, int], desc_act: bool
) -> QuantizedWeight:
    """Describe one linear.

    Args:
        stored: tensors of the checkpoint.
        stem: name of the linear.
        layout: bits, offset of stored zeros, and inputs of a group; -1 for one group.
        desc_act: whether inputs are in groups in another order than their own.
    """
    bits, offset, size = layout
    qweight, qzeros, scales = _parts(stored, stem, "gptq")
    inputs, outputs = qweight.shape[0] * WORD_BITS // bits, qweight.shape[1]
    groups = scales.shape[0]
    each = inputs if size < 0 else size
    _require_shapes(stored, stem, "gptq", qzeros.shape, (groups, outputs * bits // WORD_BITS))
    _require_shapes(stored, stem, "gptq", scales.shape, (-(-inputs // each), outputs))
    names = tuple(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
    index = stored.headers.get(names[3])
    if index is not None:
        _require_shapes(stored, stem, "gptq", index.shape, (inputs,))
    elif desc_act:
        raise _refused(stored, "gptq", f"{stem} has desc_act but no g_idx")

    def decode(
        qweight: Tensor, qzeros: Tensor, scales: Tensor, groups: Tensor | None = None
    ) -> Tensor:
        found = torch.arange(inputs) // each if groups is None else groups
        return gptq_weight(qweight, qzeros, scales, found, bits, offset)

    return QuantizedWeight(f"{stem}.weight", names[: 3 if index is None else 4], decode)


def _awq(told: Told, stored: StoredTensors) -> list[QuantizedWeight]:
    accepted = {"bits": (4,), "w_bit": (4,), "version": ("gemm",), "zero_point": (True,)}
    _require(told, stored, "awq", accepted)
    size = int(told.get("group_size") or told.get("q_group_size") or 128)  # AutoAWQ's own default
    found = []
    for stem in _stems(stored, ".qweight"):
        qweight, qzeros, scales = _parts(stored, stem, "awq")
        inputs, words = qweight.shape
        groups = inputs // (inputs if size < 0 else size)
        _require_shapes(stored, stem, "awq", qzeros.shape, (groups, words))
        _require_shapes(stored, stem, "awq", scales.shape, (groups, words * WORD_BITS // 4))
        names = tuple(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales"))
        found.append(QuantizedWeight(f"{stem}.weight", names, awq_weight))
    return found


def _fp8(told: Told, stored: StoredTensors) -> list[QuantizedWeight]:
    _require(told, stored, "fp8", {"fmt": ("e4m3", "float8_e4m3fn"), "scale_fmt": ("float",)})
    rows, columns = told.get("weight_block_size") or (0, 0)
    return _float8(stored, "fp8", (int(rows), int(columns)))


def _compressed_tensors(told: Told, stored: StoredTensors) -> list[QuantizedWeight]:
    method = "compressed-tensors"
    accepted = {"format": ("float-quantized",), "quantization_status": ("compressed", "frozen")}
    _require(told, stored, method, accepted)
    for key in ("sparsity_config", "transform_config", "kv_cache_scheme"):
        found = told.get(key) or {}
        if found and found.get("format") != "dense":
            raise _refused(stored, method, f"it has a {key}")
    block = (0, 0)
    for group in (told.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        if (weights.get("type"), weights.get("num_bits")) != ("float", 8):
            raise _refused(
                stored,
                method,
                f"its weights are {weights.get('num_bits')} bits of {weights.get('type')}",
            )
        block = tuple(weights.get("block_structure") or block)
    return _float8(stored, method, block)


def _float8(stored: StoredTensors, method: str, block: tuple[int, int]) -> list[QuantizedWeight]:
    """Find the weights of 8-bit floats, each with the scale beside it."""
    found = []
    for name, header in stored.headers.items():
        if header.dtype != FLOAT8 or not name.endswith(".weight") or len(header.shape) != 2:
            continue
        stem = name.removesuffix(".weight")
        scale = next(
            (f"{stem}.{each}" for each in _SCALES if f"{stem}.{each}" in stored.headers), ""
        )
        if not scale or stored.headers[scale].dtype not in FLOATS:
            raise _refused(stored, method, f"{name} has no {' or '.join(_SCALES)} of floats")
        sizes = _block(stored, method, name, stored.headers[scale], block)
        others = (f"{stem}.{each}" for each in _ACTIVATION_SCALES)
        parts = (name, scale, *(each for each in others if each in stored.headers))

        def decode(
            weight: Tensor, scale: Tensor, *_: Tensor, sizes: tuple[int, int] = sizes
        ) -> Tensor:
            return float8_weight(weight, scale.reshape(len(scale) if scale.ndim else 1, -1), sizes)

        found.append(QuantizedWeight(name, parts, decode))
    return found


def _block(
    stored: StoredTensors, method: str, name: str, scale: TensorHeader, block: tuple[int, int]
) -> tuple[int, int]:
    """Tell for how many outputs and inputs one scale counts."""
    rows, columns = stored.headers[name].shape
    if all(each == 1 for each in scale.shape):
        return rows, columns
    if scale.shape in ((rows,), (rows, 1)):
        return 1, columns
    if all(block) and scale.shape == (-(-rows // block[0]), -(-columns // block[1])):
        return block
    raise _refused(
        stored,
        method,
        f"{name} of {(rows, columns)} has scales of {scale.shape}, for blocks of {block}",
    )


def _stems(stored: StoredTensors, ending: str) -> list[str]:
    return [name.removesuffix(ending) for name in stored.headers if name.endswith(ending)]


def _parts(stored: StoredTensors, stem: str, method: str) -> list[TensorHeader]:
    """Look up the packed integers, packed zeros and scales of a linear."""
    found = []
    for part, dtypes in (("qweight", ("I32",)), ("qzeros", ("I32",)), ("scales", FLOATS)):
        header = stored.headers.get(f"{stem}.{part}")
        if header is None or header.dtype not in dtypes or len(header.shape) != 2:
            told = "missing" if header is None else f"{header.dtype} of {header.shape}"
            raise _refused(stored, method, f"{stem}.{part} is {told}")
        found.append(header)
    return found


def _require_shapes(
    stored: StoredTensors, stem: str, method: str, found: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    if found != wanted:
        raise _refused(
            stored,
            method,
            f"the parts of {stem} have sizes of another layout ({found}, not {wanted})",
        )


_METHODS: dict[str, Callable[[Told, StoredTensors], list[QuantizedWeight]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "fp8": _fp8,
    "compressed-tensors": _compressed_tensors,
}
