"""Checkpoints that are quantized, packed into words as each method lays its numbers out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(fields: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """Put unsigned fields of the last axis into words, the first (or ``order``'s) lowest."""
    each = 32 // bits
    words = np.zeros((*fields.shape[:-1], fields.shape[-1] // each), np.uint64)
    for place, column in enumerate(order or range(each)):
        words |= fields[..., column::each].astype(np.uint64) << np.uint64(place * bits)
    return torch.tensor(words.astype(np.uint32).view(np.int32))


def requantized(source: Path, out: Path, settings: dict[str, Any], make: Any) -> dict[str, Any]:
    """Write a copy of a folder whose projections are quantized.

    Args:
        source: folder with one ``model.safetensors``.
        out: folder of the copy.
        settings: ``quantization_config`` of the copy.
        make: function of a weight's shape that gives its tensors, by the end of their names, and
            the weight that they stand for.

    Returns:
        The weights that the copy stands for.
    """
    shutil.copytree(source, out)
    state = load_file(out / "model.safetensors")
    plain = {name: tensor.float() for name, tensor in state.items()}
    for name in [name for name in state if "proj" in name and name.endswith(".weight")]:
        tensors, plain[name] = make(tuple(state.pop(name).shape))
        stem = name.removesuffix(".weight")
        state.update({f"{stem}.{end}": tensor.contiguous() for end, tensor in tensors.items()})
    save_file(state, out / "model.safetensors", {"format": "pt"})
    change_config(out, quantization_config=settings)
    return plain


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
