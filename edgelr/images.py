"""Images of a run: list the files, and turn one into what a model reads. numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.errors import InputError
from edgelr.types import ImageInput

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def list_images(source: Path) -> str:
    """List image files, sorted by name, one per line: the path, its bytes and its time of change.

    Two lists are equal only if no file has changed: stages in the cache go by them.

    Args:
        source: a folder, whose sub-folders count, or a ``.txt`` file with one path per line, from
            the file's own folder; what follows a tab is left out.

    Raises:
        InputError: there are no images, or one is missing.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    elif source.suffix == ".txt" and source.is_file():
        paths = [source.parent / path for path in listed(source.read_text(encoding="utf-8"))]
    else:
        found = "is a file" if source.exists() else "does not exist"
        raise InputError(
            f"{source} {found}; expected a folder of images ({', '.join(SUFFIXES)}), or a .txt "
            f"file that lists them. Give the folder."
        )
    if not paths:
        raise InputError(
            f"{source} holds no images; expected files that end with {', '.join(SUFFIXES)}, in "
            f"sub-folders if you like. Name another folder."
        )
    return "\n".join(map(_line, paths))


def listed(images: str) -> list[Path]:
    """Read the paths of a list."""
    return [Path(line.split("\t")[0]) for line in images.splitlines() if line.strip()]


def spread_evenly(images: str, count: int) -> list[Path]:
    """Take at most ``count`` images, spread over the list: sub-folders are often classes."""
    paths = listed(images)
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)
    return [paths[place] for place in places]


def halves(images: str) -> tuple[str, str]:
    """Divide a list in turns, so that every sub-folder is in both halves."""
    lines = images.splitlines()
    return "\n".join(lines[::2]), "\n".join(lines[1::2])


def read_pixels(paths: Sequence[Path], image: ImageInput) -> NDArray[np.float32]:
    """Prepare images as their model's processor does, ``(images, 3, side, side)``.

    Raises:
        InputError: a file is no image that Pillow can read.
    """
    return np.stack([normalized(read_picture(path, image), image) for path in paths])


def read_picture(path: Path, image: ImageInput) -> NDArray[np.uint8]:
    """Read an image at the size that the model reads, ``(side, side, 3)``.

    Raises:
        InputError: the file is no image that Pillow can read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # measuring needs no Pillow

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"Cannot read the image {path}: {error}. Expected a whole {', '.join(SUFFIXES)} file. "
            f"Remove it, or name another folder."
        ) from error
    picture = picture.resize(_size(picture, image), Image.Resampling[image.resample.upper()])
    pixels = np.asarray(picture)  # (height, width, 3)
    if image.cropped:
        top, left = ((edge - image.side) // 2 for edge in pixels.shape[:2])
        pixels = pixels[top : top + image.side, left : left + image.side]
    return pixels


def normalized(pixels: NDArray[np.uint8], image: ImageInput) -> NDArray[np.float32]:
    """Scale and shift the colours of ``(side, side, 3)`` to ``(3, side, side)``."""
    scaled = (pixels.astype(np.float64) * image.scale).astype(np.float32)
    mean, std = (np.array(colours, np.float32) for colours in (image.mean, image.std))
    values: NDArray[np.float32] = (scaled - mean) / std
    return values.transpose(2, 0, 1)


def _size(picture: Image.Image, image: ImageInput) -> tuple[int, int]:
    """Width and height to resize to; the longer edge is rounded down."""
    if len(image.resized) == 2:
        height, width = image.resized
        return width, height
    (edge,), short = image.resized, min(picture.size)
    width, height = (int(edge * each / short) for each in picture.size)
    return width, height


def _line(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(
            f"The image {path} cannot be read ({error.strerror}); expected the files that the list "
            f"names, from the folder of the list. Mend the list."
        ) from error
    return f"{path.resolve()}\t{found.st_size}\t{found.st_mtime_ns}"
