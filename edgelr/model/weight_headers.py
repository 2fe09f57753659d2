"""Files of weights, by their headers: which there are, and the shapes of their tensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from edgelr.core.errors import InputError


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold a model's weights, without other variants of them.

    Raises:
        InputError: a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("model.safetensors"))
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{index} is no list of shards ({type(error).__name__}). Copy or download the model "
            f"again."
        ) from error
    files = [folder / name for name in dict.fromkeys(named)]
    if missing := [path.name for path in files if not path.is_file()]:
        raise InputError(
            f"{folder} lacks {len(missing)} of {len(files)} files of weights: "
            f"{', '.join(missing[:3])}. Expected every shard that {index.name} names. Copy or "
            f"download the model again."
        )
    return files


def tensor_shapes(path: Path) -> list[list[int]]:
    """List the shapes of the tensors in a file of weights.

    Raises:
        InputError: the file is not whole.
    """
    try:
        with safe_open(path, framework="np") as file:
            return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The weights {path} cannot be read ({error}); expected a whole file of safetensors. "
            f"Copy or download the model again."
        ) from error
