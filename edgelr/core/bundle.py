"""A finished folder and its manifest: read, written, and checked file by file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from edgelr.core.cache import sha256
from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput, Matching, SoundInput
from edgelr.core.vocabulary import Pooling, Precision, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST = "edgelr/manifest.json"
STORED_ANSWERS = "edgelr/answers.npz"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle; ``path`` is relative to the folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Residency:
    """Bytes of a graph's weights in memory, once ONNX Runtime has loaded them.

    Attributes:
        packed_bytes: copies in the layouts of kernels, which belong to the process.
        mapped_bytes: pages of the file.
        quantized: whether a MatMulNBits multiplies by some of them, in 8 or 4 bits.
    """

    packed_bytes: int
    mapped_bytes: int
    quantized: bool = False

    @property
    def bytes(self) -> int:
        return self.packed_bytes + self.mapped_bytes


@dataclass(frozen=True)
class Manifest:
    """``edgelr/manifest.json``: what a bundle (or a dense export) holds.

    ``model_file`` is relative to the folder; so is ``encoder_file``, where the encoder, or what
    reads prompts, has a graph of its own: both have their weights in one file. ``pooling`` is None
    for models that do not embed, ``mask_token`` for those that fill in no token, ``image`` and
    ``sound`` for those that read text; an image has always ``context_tokens`` tokens. ``matching``
    is None for models that do not compare texts with images.
    ``max_drop`` is the limit of its accuracy gate, and ``gate_passed`` what the gate said.
    ``cache_in_place`` tells that past and present keys and values may be the same tensors;
    ``shape`` and ``residency`` how much memory runs take.
    """

    task: Task
    modality: str
    precision: Precision
    model_file: str
    source: str
    revision: str | None
    digest: str
    opset: int
    ir_version: int
    context_tokens: int
    pooling: Pooling | None = None
    mask_token: int | None = None
    profile: str | None = None
    max_drop: float | None = None
    gate_passed: bool | None = None
    cache_in_place: bool = False
    image: ImageInput | None = None
    shape: ModelShape | None = None
    residency: Residency | None = None
    files: tuple[BundleFile, ...] = ()
    encoder_file: str | None = None
    sound: SoundInput | None = None
    matching: Matching | None = None


@dataclass(frozen=True)
class ExportBundle:
    """A finished folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.folder / self.manifest.model_file

    @property
    def encoder_path(self) -> Path | None:
        name = self.manifest.encoder_file
        return None if name is None else self.folder / name

    @property
    def weight_bytes(self) -> int:
        """Bytes of the graph files and their sidecar."""
        sidecar = self.model_path.with_name(self.model_path.name + ".data")
        paths = (self.model_path, self.encoder_path, sidecar)
        return sum(path.stat().st_size for path in paths if path is not None and path.exists())

    def resident_bytes(self, provider: str) -> int | None:
        """Memory of the weights; a GPU holds them as they are stored. None where it is unknown."""
        if provider != "cpu":
            return self.weight_bytes
        return None if self.manifest.residency is None else self.manifest.residency.bytes


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
