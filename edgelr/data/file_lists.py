"""Files of a run, such as images or sounds: list them, and divide the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelr.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of files: one is called ``name``, and its file ends with one of ``suffixes``."""

    name: str
    suffixes: tuple[str, ...]

    @property
    def endings(self) -> str:
        return ", ".join(self.suffixes)


IMAGES = Kind("image", (".jpeg", ".jpg", ".png", ".webp"))
SOUNDS = Kind("sound", (".flac", ".wav"))


def list_files(source: Path, kind: Kind) -> str:
    """List files, sorted by name, one per line: the path, its bytes and its time of change.

    Two lists are equal only if no file has changed: stages in the cache go by them.

    Args:
        source: folder, whose sub-folders count, or ``.txt`` file with one path per line, from
            the file's own folder. Behind a tab, only a fourth field of the line stays.
        kind: kind of the files.

    Raises:
        InputError: there are no files of this kind, or one is missing.
    """
    rows: list[list[str]] = []
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in kind.suffixes)
        rows = [[str(path.absolute())] for path in found]
    elif source.suffix == ".txt" and source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines if line.strip()]
    else:
        problem = "is a file" if source.exists() else "does not exist"
        raise InputError(
            f"{source} {problem}; expected a folder of {kind.name}s ({kind.endings}), or a .txt "
            f"file that lists them. Give the folder."
        )
    if not rows:
        raise InputError(
            f"{source} holds no {kind.name}s; expected files that end with {kind.endings}, in "
            f"sub-folders if you like. Name another folder."
        )
    return "\n".join(listed_line(source.parent / row[0], kind, row[3:]) for row in rows)


def listed_line(path: Path, kind: Kind, more: Sequence[str] = ()) -> str:
    """Describe one file of a list; ``more`` follows.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(
            f"The {kind.name} {path} cannot be read ({error.strerror}); expected the files that "
            f"the list names, from the folder of the list. Mend the list."
        ) from error
    return "\t".join((str(path.resolve()), str(found.st_size), str(found.st_mtime_ns), *more))


def listed(files: str) -> list[Path]:
    """Read the paths of a list."""
    return [Path(line.split("\t")[0]) for line in files.splitlines() if line.strip()]


def spread_evenly(files: str, count: int) -> list[Path]:
    """Take at most ``count`` files, spread over the list: sub-folders are often classes."""
    return listed(spread_lines(files, count))


def spread_lines(files: str, count: int) -> str:
    """Shorten a list to at most ``count`` files, spread over it."""
    lines = [line for line in files.splitlines() if line.strip()]
    places = np.linspace(0, len(lines) - 1, min(count, len(lines))).astype(int)
    return "\n".join(lines[place] for place in places)


def halves(files: str) -> tuple[str, str]:
    """Divide a list in turns, so that every sub-folder is in both halves."""
    lines = files.splitlines()
    return "\n".join(lines[::2]), "\n".join(lines[1::2])
