"""Reference values of image encoders: answers to images, which are stored as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.data.file_lists import spread_evenly
from edgelr.data.images import list_images, normalized, read_picture
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.answers import answers_of
from edgelr.runtime.reference_tests.values import ReferenceValues
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner

IMAGES = 16


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Run images; see ``ReferenceTest``."""
    assert source is not None, "edgelr brings no images"
    first, second = (ImageEncoderRunner.open(each) for each in (original, bundle))
    paths = spread_evenly(list_images(source), IMAGES)
    pictures = [read_picture(path, second.image) for path in paths]
    rows = [normalized(picture, second.image) for picture in pictures]
    return answers_of(first, second, bundle, rows, {"pictures": np.stack(pictures)})


REFERENCE_TESTS.register("image_encoder")(ReferenceTest(collect, SUITES / "image.py"))
