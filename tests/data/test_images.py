"""Images of a run: how they are listed and divided, and that pixels are those of transformers."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.data.file_lists import IMAGES, halves, listed, spread_evenly
from edgelr.data.images import list_images, read_pixels
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.processors import image_input
from edgelr.stages.text_selection import choose_files
from tests.conftest import TINY_IMAGES, write_tiny
from tests.helpers.paths import SNIPPETS

Models = dict[str, LoadedModel]
WriteImages = Callable[..., Path]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Write so many small images into every one of two sub-folders."""

    def write(name: str, count: int) -> Path:
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(count):
                picture(6, 5, seed=index).save(tmp_path / name / label / f"{index:02}.png")
        return tmp_path / name

    return write


# --- lists ---------------------------------------------------------------------------------------


def test_a_folder_is_listed_with_its_sub_folders(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    (folder / "notes.txt").write_text("no image")
    picture(4, 4).save(folder / "last.JPG", "JPEG")
    names = [path.relative_to(folder).as_posix() for path in listed(list_images(folder))]
    assert names == ["cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png", "last.JPG"]


def test_a_list_in_a_file_goes_by_the_folder_of_the_file(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    (folder / "some.txt").write_text("dog/01.png\n\ncat/00.png\n")
    assert listed(list_images(folder / "some.txt")) == [
        folder / "dog/01.png",
        folder / "cat/00.png",
    ]
    (folder / "again.txt").write_text(list_images(folder / "some.txt"))
    assert list_images(folder / "again.txt") == list_images(folder / "some.txt")


def test_a_list_changes_with_its_files(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    before = list_images(folder)
    assert list_images(folder) == before
    picture(9, 9).save(folder / "dog/01.png")
    assert listed(list_images(folder)) == listed(before)
    assert list_images(folder) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"missing does not exist; expected a folder"),
        ("empty", r"empty holds no images.*sub-folders"),
        ("photo.png", r"photo\.png is a file; expected a folder"),
        ("gone.txt", r"gone\.png cannot be read.*Mend the list"),
    ],
)
def test_what_is_no_folder_of_images_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    picture(4, 4).save(tmp_path / "photo.png")
    (tmp_path / "gone.txt").write_text("gone.png")
    with pytest.raises(InputError, match=message):
        list_images(tmp_path / name)


def test_a_few_images_come_from_everywhere(write_images: WriteImages) -> None:
    images = list_images(write_images("photos", 5))
    names = [f"{path.parent.name}{path.stem}" for path in spread_evenly(images, 4)]
    assert names == ["cat00", "cat03", "dog01", "dog04"]
    assert spread_evenly(images, 99) == listed(images)


def test_half_of_a_folder_calibrates_and_the_other_half_judges(write_images: WriteImages) -> None:
    folder = write_images("photos", 8)
    for options in (((str(folder),), None), ((), str(folder))):
        found = choose_files(IMAGES, list_images, *options)
        ((name, calibration),) = found.calibration
        parts = [set(listed(part)) for part in (calibration, found.evaluation, found.selection)]
        assert [len(part) for part in parts] == [8, 4, 4]
        assert set.union(*parts) == set(listed(list_images(folder)))
        assert all({path.parent.name for path in part} == {"cat", "dog"} for part in parts)
        assert name == f"{folder}, every second"
        assert found.judged_on == f"{folder}, one quarter"


def test_two_folders_each_have_their_part(write_images: WriteImages) -> None:
    ours, theirs = write_images("ours", 3), write_images("theirs", 5)
    found = choose_files(IMAGES, list_images, (str(ours),), str(theirs))
    assert found.calibration == ((str(ours), list_images(ours)),)
    assert (found.evaluation, found.selection) == halves(list_images(theirs))
    assert found.judged_on == f"{theirs}, one half"


@pytest.mark.parametrize("calibration", [(), ("self",)])
def test_without_images_a_folder_is_asked_for(calibration: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"--calibration FOLDER: one half calibrates"):
        choose_files(IMAGES, list_images, calibration, None)


def test_too_few_images_are_refused(write_images: WriteImages) -> None:
    with pytest.raises(InputError, match=r"only 3 images are left.*at least 4"):
        choose_files(IMAGES, list_images, (str(write_images("photos", 7)),), None)


# --- pixels --------------------------------------------------------------------------------------

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


@pytest.fixture
def prepare(tiny_models: Models, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Make a model folder with other preparations, without its weights."""

    def make(options: dict[str, Any]) -> Path:
        shutil.copy(tiny_models["dinov2"].folder / "config.json", tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
        return tmp_path

    return make


@pytest.mark.parametrize("name", PREPARED)
def test_pixels_are_those_of_transformers(
    tiny_models: Models, prepare: Callable[[dict[str, Any]], Path], name: str
) -> None:
    folder = prepare(PREPARED[name])
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": {"height": 20, "width": 24}}, r"\(20, 24\) and cuts nothing.*one square"),
        ({"size": {"shortest_edge": 20}}, r"\(20,\) and cuts nothing"),
        ({"size": {"height": 20, "width": 20}, "do_resize": False}, r"do_resize False"),
        ({"size": {"height": 20, "width": 20}, "do_pad": True}, r"without padding"),
        (
            {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": 20},
            r"\(16,\) and cuts \(20, 20\).*lies inside",
        ),
    ],
)
def test_preparations_that_cannot_be_repeated_are_refused(
    tiny_models: Models,
    prepare: Callable[[dict[str, Any]], Path],
    options: dict[str, Any],
    message: str,
) -> None:
    folder = prepare({"image_processor_type": "ViTImageProcessor", **options})
    with pytest.raises(InputError, match=message):
        image_input(tiny_models["dinov2"].module, folder)


def test_a_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "vit")
    options = {**TINY_IMAGES, "crop_size": 24}
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    with pytest.raises(InputError, match=r"24 x 24 pixels, and its model does not take them"):
        load(str(folder), Cache(tmp_path / "cache"))


def test_a_model_without_preparations_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"expected a preprocessor_config\.json"):
        load(str(folder), Cache(tmp_path / "cache"))


def test_other_preparations_make_another_model(tiny_models: Models, tmp_path: Path) -> None:
    """Its graph may be of another size, and stages in the cache go by the digest."""
    folder = write_tiny(tmp_path / "model", "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({**TINY_IMAGES, "resample": 3}))
    found = load(str(folder), Cache(tmp_path / "cache"))
    assert found.digest != tiny_models["vit"].digest
