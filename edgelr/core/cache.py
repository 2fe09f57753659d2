"""Finished stages on disk, found again by the hash of what went into them.

A stage's folder is written under another name and renamed when it is complete: what exists is
whole. A run that was interrupted continues from its last finished stage without being told.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any

from edgelr.core.errors import EnvironmentProblem

_BLOCK_BYTES = 1 << 20


def default_root() -> Path:
    """``$EDGELR_CACHE``, else ``edgelr`` in the user's cache folder."""
    if "EDGELR_CACHE" in os.environ:
        return Path(os.environ["EDGELR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgelr"


def digest(*parts: Any) -> str:
    """Hash JSON-serializable parts to 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> hashlib._Hash:
    """Hash the content of one file."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            total.update(block)
    return total


def file_digest(paths: list[Path]) -> str:
    """Hash the contents of files, in the given order, to 16 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        total.update(sha256(path).digest())
    return total.hexdigest()[:16]


@dataclass(frozen=True)
class Cache:
    """Stage folders below ``root``; ``reuse=False`` makes every stage anew."""

    root: Path
    reuse: bool = True

    def stage(self, name: str, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the folder of a finished stage, building it first where it is missing.

        Args:
            name: name of the stage, for people who look into the cache.
            key: hash of everything that decides the result.
            build: fills an empty folder.

        Returns:
            The folder, and whether it was reused.
        """
        folder = self.root / f"{name}-{key}"
        if folder.is_dir() and self.reuse:
            return folder, True
        write_atomically(folder, build)
        return folder, False


def write_atomically(folder: Path, build: Callable[[Path], None]) -> None:
    """Let ``build`` fill a sibling of ``folder``, then put it in the place of ``folder``."""
    with unfinished(folder) as partial:
        build(partial)
        replace_folder(partial, folder)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Give an empty sibling of ``folder`` to work in, which is gone after the block.

    Its name tells host and process, so that two runs never share one, and so that what a killed
    process left is found and removed by the next run.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_the_dead(folder)
    partial = _sibling(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(finished: Path, folder: Path) -> None:
    """Move ``finished`` to ``folder``; what stood there goes away only after the move."""
    previous = _sibling(folder, "previous")
    if folder.exists():
        folder.rename(previous)
    finished.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _sibling(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}-{node()}-{os.getpid()}")


def _clean_up_after_the_dead(folder: Path) -> None:
    """Remove what processes of this host left that are gone; restore what they had set aside."""
    for kind in ("previous", "partial"):
        pattern = glob.escape(f".{folder.name}.{kind}-{node()}-") + "*"
        for left in folder.parent.glob(pattern):
            if _runs(int(left.name.rpartition("-")[2])):
                continue
            if kind == "previous" and not folder.exists():
                left.rename(folder)
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def require_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        EnvironmentProblem: fewer than ``needed_bytes`` are free where ``folder`` is or will be.
    """
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise EnvironmentProblem(
            f"{purpose} needs about {needed_bytes / 2**20:,.0f} MiB below {existing}, and "
            f"{free / 2**20:,.0f} MiB are free. Free some space, or set EDGELR_CACHE and --out to "
            f"another disk."
        )
