"""GGUF files as they lie on the disk: whole ones, and models that were split into parts."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError

from edgelr.core.errors import InputError

PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
SPLIT = "split."
_UNREADABLE = (OSError, ValueError, LookupError, NotImplementedError, struct.error)


def parts_of(path: Path) -> list[Path]:
    """List the files of a model, of which one is given.

    Raises:
        InputError: the file, or another part of the model, does not exist.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a .gguf file.")
    found = PART.search(path.name)
    if found is None:
        return [path]
    stem, count = path.name[: found.start()], int(found[2])
    names = [f"{stem}-{number:05d}-of-{found[2]}.gguf" for number in range(1, count + 1)]
    parts = [path.with_name(name) for name in names]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InputError(
            f"{path} is one of {count} parts, and {len(missing)} of them are missing: "
            f"{', '.join(missing)}. Expected all of them in {path.parent}. Copy them there."
        )
    return parts


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Name the file where it cannot be read."""
    try:
        yield
    except (*_UNREADABLE, StrictDataclassError) as error:
        raise InputError(
            f"{path} cannot be read by transformers {transformers.__version__} ({error}); "
            f"expected a whole GGUF file of an architecture that it knows. Copy the file "
            f"again, or give the original model."
        ) from error


def open_parts(parts: list[Path]) -> list[Any]:
    """Open the files of a model.

    Raises:
        InputError: one of them is broken, or tells another number of parts.
    """
    import gguf

    readers = []
    for path in parts:
        with readable(path):
            readers.append(gguf.GGUFReader(path))
        told = readers[-1].get_field("split.count")
        count = len(parts) if told is None else int(told.contents())
        if count not in (len(parts), 0):
            raise InputError(
                f"{path} is one of {count} parts (split.count), and its name finds {len(parts)}. "
                f"Expected names such as model-00001-of-{count:05d}.gguf, which all of them need."
            )
    return readers


def require_all_tensors(readers: list[Any], path: Path) -> None:
    """Refuse parts that hold fewer tensors than they tell.

    Raises:
        InputError: a tensor is missing.
    """
    told = next(filter(None, (each.get_field("split.tensors.count") for each in readers)), None)
    found = sum(len(each.tensors) for each in readers)
    if told is not None and found != int(told.contents()):
        raise InputError(
            f"{path} holds {found:,} tensors, and its split.tensors.count is "
            f"{int(told.contents()):,}. Expected all of one model. Copy its parts again."
        )


def merge(readers: list[Any], path: Path) -> None:
    """Write the parts of a model into one file, every tensor with the bytes that it has."""
    import gguf

    writer = gguf.GGUFWriter(path, metadata_of(readers)["general.architecture"])
    for field in _fields(readers).values():
        if not field.name.startswith((SPLIT, "GGUF.")) and field.name != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in (each for reader in readers for each in reader.tensors):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def metadata_of(readers: list[Any]) -> dict[str, Any]:
    """Read the metadata of a model: the first part has it, others repeat some."""
    return {name: field.contents() for name, field in _fields(readers).items()}


def tensors_of(readers: list[Any]) -> dict[str, Any]:
    """List the tensors of a model, by name."""
    return {tensor.name: tensor for reader in readers for tensor in reader.tensors}


def _fields(readers: list[Any]) -> dict[str, Any]:
    return {name: field for reader in reversed(readers) for name, field in reader.fields.items()}
