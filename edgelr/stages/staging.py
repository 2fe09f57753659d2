"""Where a bundle is made: refuse what would fail at the end, and show nothing half-finished."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgelr.core.bundle import MANIFEST
from edgelr.core.cache import replace_folder, require_space, unfinished
from edgelr.core.errors import InputError
from edgelr.core.run import Run


@dataclass(frozen=True)
class Staging:
    """Where a bundle is made: ``bundle`` becomes the result, ``scratch`` goes away."""

    bundle: Path
    scratch: Path


def preflight(out: Path, force: bool, run: Run) -> None:
    """Refuse, before any work, what would fail at the end.

    Raises:
        InputError: ``out`` holds something that must not be lost.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / MANIFEST).exists():
            raise InputError(
                f"{out} exists and is no edgelr bundle; expected an empty or a new folder. Name "
                f"another one with --out: edgelr does not delete what it did not write."
            )
        if not force:
            raise InputError(
                f"{out} holds a bundle; expected an empty or a new folder. Add --force to replace "
                f"it, or name another one with --out."
            )
    _require_writable(out.absolute())
    require_space(out, 2**20, "The bundle")
    require_space(run.cache.root, 2**20, "The cache")


def _require_writable(out: Path) -> None:
    """Refuse a place in which no folder can be made."""
    parent = next(path for path in out.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{out} cannot be written: {parent} is {'read-only' if parent.is_dir() else 'a file'}. "
            f"Expected a folder that can be written. Name another one with --out."
        )


def require_room(room: tuple[int, int], out: Path | None, run: Run) -> None:
    """Refuse to start what the disks cannot hold, now that the size of the model is known.

    Args:
        room: bytes that the cache and the bundle take at most.
        out: folder of the bundle, if one is written.
        run: cache of the stages.
    """
    require_space(run.cache.root, room[0], "The cache of this model")
    require_space(out or run.cache.root, room[1], "The bundle")


@contextmanager
def staging(out: Path, force: bool) -> Iterator[Staging]:
    """Give a folder that becomes ``out`` in one step, if the block ends well."""
    out = out.resolve()
    with unfinished(out) as root:
        place = Staging(root / "bundle", root / "scratch")
        place.bundle.mkdir()
        place.scratch.mkdir()
        yield place
        if out.exists() and not force and any(out.iterdir()):
            raise InputError(f"{out} was filled by another run meanwhile; --force replaces it.")
        replace_folder(place.bundle, out)
