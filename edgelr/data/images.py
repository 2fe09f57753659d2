"""Images of a run: files are listed, and turned into pixels. numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput
from edgelr.data.file_lists import IMAGES, list_files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


def list_images(source: Path) -> str:
    """List image files; see ``listings.list_files``."""
    return list_files(source, IMAGES)


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
            f"Cannot read the image {path}: {error}. Expected a whole {IMAGES.endings} file. "
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
