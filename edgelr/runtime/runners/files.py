"""Image and sound files that bundles are judged on."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.errors import InputError
from edgelr.data.file_lists import IMAGES, Kind, spread_evenly
from edgelr.data.images import list_images
from edgelr.runtime.requests import Evaluation


def images_of(evaluation: Evaluation) -> list[Path]:
    """List image files, spread evenly over all that there are.

    Raises:
        InputError: no folder was named, or it holds none.
    """
    images = list_images(named_source(evaluation, IMAGES))
    return spread_evenly(images, evaluation.size.images)


def named_source(evaluation: Evaluation, kind: Kind) -> Path:
    """Return the folder that the user named.

    Raises:
        InputError: the user named none.
    """
    if evaluation.source is None:
        raise InputError(
            f"The model reads {kind.name}s, and none are given; expected some that it was not "
            f"calibrated on. Name their folder with --data."
        )
    return evaluation.source
