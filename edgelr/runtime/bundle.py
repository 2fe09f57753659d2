"""Read and write the manifest of a finished folder, and check its files against it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from edgelr.cache import sha256
from edgelr.errors import InputError
from edgelr.types import BundleFile, ExportBundle, Manifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST = "edgelr/manifest.json"


def read_bundle(folder: Path, verify: bool = False) -> ExportBundle:
    """Open a bundle or a dense export, and check that its files are the ones it was written with.

    Args:
        folder: a folder that holds ``edgelr/manifest.json``.
        verify: also compare every file's sha256, which reads all of them.

    Raises:
        InputError: there is no manifest, it cannot be read, or a file is missing or differs.
    """
    manifest = read_manifest(folder)
    for name in filter(None, (manifest.model_file, manifest.encoder_file)):
        _check_path(folder, name)
        if not (folder / name).is_file():
            raise InputError(_damaged(folder, name, "is missing"))
    for file in manifest.files:
        _check_file(folder, file, verify)
    return ExportBundle(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder, without a look at the files that it lists.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder} has no {MANIFEST}. Expected a folder that `edgelr export` wrote. "
            f"Export the model again, or name another folder."
        )
    return _parse(path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``edgelr/manifest.json``; an interrupted write leaves the old one in place."""
    path = folder / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.part")
    draft.write_bytes(TypeAdapter(Manifest).dump_json(manifest, indent=2) + b"\n")
    draft.replace(path)


def describe_files(folder: Path, paths: Iterable[str]) -> tuple[BundleFile, ...]:
    """Measure the size and the sha256 of ``paths``, which are relative to ``folder``."""
    return tuple(
        BundleFile(path, (folder / path).stat().st_size, sha256(folder / path).hexdigest())
        for path in paths
    )


def read_config(bundle: ExportBundle) -> dict[str, Any]:
    """Read the model's ``config.json``.

    Raises:
        InputError: the file is missing, or is no JSON object.
    """
    path = bundle.folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(_damaged(bundle.folder, path.name, f"cannot be read ({error})")) from error
    if not isinstance(config, dict):
        raise InputError(_damaged(bundle.folder, path.name, "holds no JSON object"))
    return config


def read_generation_config(bundle: ExportBundle) -> dict[str, Any]:
    """Read the model's ``generation_config.json``; one that is not there says nothing."""
    path = bundle.folder / "generation_config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def read_tokenizer(bundle: ExportBundle) -> Tokenizer:
    """Read the model's ``tokenizer.json``.

    Raises:
        InputError: the file is missing.
    """
    from tokenizers import Tokenizer  # measuring needs no tokenizer, nor its memory

    path = bundle.folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(_damaged(bundle.folder, path.name, "is missing"))
    return Tokenizer.from_file(str(path))


def _parse(path: Path) -> Manifest:
    try:
        return TypeAdapter(Manifest).validate_json(path.read_bytes(), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is not a manifest: {where}: {first['msg']} ({error.error_count()} in all). "
            f"Expected what this version of edgelr writes. Export the model again."
        ) from error


def _check_file(folder: Path, file: BundleFile, verify: bool) -> None:
    _check_path(folder, file.path)
    path = folder / file.path
    if not path.is_file():
        raise InputError(_damaged(folder, file.path, "is missing"))
    found_bytes = path.stat().st_size
    if found_bytes != file.bytes:
        problem = f"has {found_bytes:,} bytes, the manifest says {file.bytes:,}"
        raise InputError(_damaged(folder, file.path, problem))
    if verify and sha256(path).hexdigest() != file.sha256:
        problem = f"has another content than when it was written (sha256 not {file.sha256[:12]}…)"
        raise InputError(_damaged(folder, file.path, problem))


def _check_path(folder: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InputError(_damaged(folder, name, "lies outside the folder"))


def _damaged(folder: Path, name: str, problem: str) -> str:
    return (
        f"{folder}: {name} {problem}. Expected the files as edgelr wrote them. "
        f"Copy the folder again, or export the model again."
    )
