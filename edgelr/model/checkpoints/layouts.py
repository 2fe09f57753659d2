"""Layouts of quantized weights: integers in words of 32 bits, and 8-bit floats, with scales.

Each function gives the weight that its numbers stand for, ``(out_features, in_features)`` float32.
Integers are decoded as ``scale * (q - zero)``, exactly: a scale of 11 bits times an integer of 9.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD_BITS = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # column of each 4-bit field, from the lowest


def unpack(words: Tensor, bits: int) -> Tensor:
    """Take the fields out of words, the lowest first.

    Args:
        words: packed fields, ``(rows, words)`` int32.
        bits: size of a field.

    Returns:
        Unsigned fields, ``(rows, words * 32 / bits)`` int32.
    """
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    fields: Tensor = (words[..., None] >> shifts) & (2**bits - 1)
    return fields.flatten(-2)


def gptq_weight(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, groups: Tensor, bits: int, zero_offset: int
) -> Tensor:
    """Decode a weight of GPTQ, whose words run along the inputs.

    Args:
        qweight: packed integers, ``(in_features * bits / 32, out_features)`` int32.
        qzeros: packed zero points, ``(groups, out_features * bits / 32)`` int32.
        scales: scale of each group and output, ``(groups, out_features)``.
        groups: group of each input, ``(in_features,)``.
        bits: size of an integer.
        zero_offset: number that is added to stored zeros: 1, or 0 in ``gptq_v2``.
    """
    quantized = unpack(qweight.T.contiguous(), bits)  # (out_features, in_features)
    zeros = unpack(qzeros, bits) + zero_offset
    index = groups.long()
    weight: Tensor = (quantized - zeros.T[:, index]).float() * scales.float().T[:, index]
    return weight.contiguous()


def awq_weight(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """Decode a weight of AWQ's version ``gemm``, whose words run along the outputs.

    Args:
        qweight: packed integers, ``(in_features, out_features / 8)`` int32.
        qzeros: packed zero points, ``(groups, out_features / 8)`` int32.
        scales: scale of each group and output, ``(groups, out_features)``.
    """
    size = len(qweight) // len(scales)
    quantized, zeros = _in_order(qweight), _in_order(qzeros).repeat_interleave(size, 0)
    weight: Tensor = (quantized - zeros).float() * scales.float().repeat_interleave(size, 0)
    return weight.T.contiguous()


def _in_order(words: Tensor) -> Tensor:
    """Unpack fields of 4 bits and put them into the order of their columns."""
    fields: Tensor = unpack(words, 4).unflatten(-1, (-1, len(AWQ_ORDER)))
    return fields[..., torch.tensor(AWQ_ORDER).argsort()].flatten(-2)


def float8_weight(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """Decode a weight of 8-bit floats.

    Args:
        weight: stored numbers, ``(out_features, in_features)``.
        scale: factors, one for each block, ``(block rows, block columns)``.
        block: outputs and inputs of a block; at the edges blocks are cut.
    """
    rows, columns = weight.shape
    spread = scale.float().repeat_interleave(block[0], 0)[:rows]
    return weight.float() * spread.repeat_interleave(block[1], 1)[:, :columns]
