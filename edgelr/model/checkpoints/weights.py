"""Tensors of safetensors files: their headers, which cost nothing to read, and new files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgelr.core.errors import InputError
from edgelr.model.small_files import read_json

INDEX = "model.safetensors.index.json"
_SHARD_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One stored tensor.

    Attributes:
        dtype: name of its numbers in safetensors, such as ``BF16``.
        shape: sizes of its axes.
    """

    dtype: str
    shape: tuple[int, ...]


class StoredTensors:
    """The weights of a folder; numbers are read when they are asked for.

    Args:
        folder: folder of the safetensors files, which may have none.

    Raises:
        InputError: a file is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.headers: dict[str, TensorHeader] = {}
        self._files: dict[str, Any] = {}
        try:
            for path in weight_files(folder):
                self._open(path)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"The weights of {folder} cannot be read ({error}); expected whole *.safetensors, "
                f"every shard of them. Copy or download the model again."
            ) from error

    def _open(self, path: Path) -> None:
        file: Any = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118  # it is no dictionary
            stored = file.get_slice(name)
            self.headers[name] = TensorHeader(stored.get_dtype(), tuple(stored.get_shape()))
            self._files[name] = file

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        found: Tensor = self._files[name].get_tensor(name)
        return found


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that transformers would read, an adapter's not among them."""
    index = folder / INDEX
    if index.is_file() and not (folder / "model.safetensors").is_file():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    found = sorted(folder.glob("*.safetensors"))
    return [path for path in found if not path.name.startswith("adapter_")]


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors into shards, of which one is in memory at a time, and their index."""
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    files = 0
    for name, tensor in tensors:
        if shard and sum(each.nbytes for each in (*shard.values(), tensor)) > _SHARD_BYTES:
            files, shard = _write_shard(folder, shard, files, places)
        shard[name] = tensor.contiguous()
    _write_shard(folder, shard, files, places)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1))


def _write_shard(
    folder: Path, shard: dict[str, Tensor], files: int, places: dict[str, str]
) -> tuple[int, dict[str, Tensor]]:
    """Write one shard, note which tensors it holds, and begin the next."""
    name = f"model-{files + 1:05d}.safetensors"
    save_file(shard, folder / name, {"format": "pt"})
    places.update(dict.fromkeys(shard, name))
    return files + 1, {}
