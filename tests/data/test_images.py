"""Images of a run: their pixels are those that transformers prepares."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from edgelr.core.errors import InputError
from edgelr.data.images import read_pixels
from edgelr.model.loaded import LoadedModel
from edgelr.model.processors import image_input
from tests.conftest import TINY_IMAGES
from tests.helpers.paths import SNIPPETS

Models = dict[str, LoadedModel]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values).convert(mode)


PREPARED = {
    "stretched": {"image_processor_type": "ViTImageProcessor", "size": {"height": 20, "width": 20}},
    "old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 20, "image_mean": [0.1] * 3},
    "cropped": TINY_IMAGES,
    "shortest": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 23},
        "crop_size": {"height": 20, "width": 20},
    },
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 25, "crop_size": 20},
    "nearest": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 20, "width": 20},
        "resample": 0,
    },
    "plain": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 20, "width": 20},
        "do_normalize": False,
        "rescale_factor": 0.01,
    },
    "twice": {  # EfficientNet with a head divides by the deviation again
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 20, "width": 20},
        "image_std": [0.5, 0.6, 0.7],
        "rescale_offset": True,
    },
    "once": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 20, "width": 20},
        "do_normalize": False,
        "include_top": True,
    },
    "bytes": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 20, "width": 20},
        "do_rescale": False,
        "do_normalize": False,
    },
}


@pytest.mark.parametrize("name", PREPARED)
def test_pixels_are_those_of_transformers(tiny_models: Models, tmp_path: Path, name: str) -> None:
    folder = tmp_path
    shutil.copy(tiny_models["dinov2"].folder / "config.json", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED[name]))
    image = image_input(tiny_models["dinov2"].module, folder)
    assert image is not None
    assert (image.side, image.tokens) == (20, 26)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    sizes = ((64, 41), (33, 57), (20, 20), (9, 12))
    modes = ("RGB", "L", "P", "RGBA")
    paths, pictures = [], []
    for index, (size, mode) in enumerate(zip(sizes, modes, strict=True)):
        pictures.append(picture(*size, mode))
        paths.append(folder / f"{index}.png")
        pictures[-1].save(paths[-1])
    expected = [
        processor(each.convert("RGB"), return_tensors="np")["pixel_values"][0] for each in pictures
    ]
    found = read_pixels(paths, image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-6, atol=1e-6)
    for snippet in ("classify_image.py", "embed_image.py"):
        prepare_alone = runpy.run_path(str(SNIPPETS / snippet))["prepare"]
        alone = [prepare_alone(str(path), asdict(image)) for path in paths]
        np.testing.assert_allclose(np.concatenate(alone), found, rtol=1e-5, atol=1e-5)


def test_a_photo_is_turned_as_its_camera_was(tiny_models: Models, tmp_path: Path) -> None:
    image = tiny_models["vit"].image
    assert image is not None
    upright = picture(40, 30)
    upright.save(tmp_path / "upright.png")
    tags = Image.Exif()
    tags[0x0112] = 6  # orientation: the camera was turned to the right
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=tags)
    found = read_pixels([tmp_path / "upright.png", tmp_path / "turned.png"], image)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_broken_image_is_named(tiny_models: Models, tmp_path: Path) -> None:
    image = tiny_models["vit"].image
    assert image is not None
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and nothing else")
    with pytest.raises(InputError, match=r"broken\.png.*Remove it"):
        read_pixels([tmp_path / "broken.png"], image)
