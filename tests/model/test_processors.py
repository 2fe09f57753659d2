"""Preparations of images and sounds: told as transformers understands them, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.inputs import SoundInput
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.processors import image_input
from tests.conftest import TINY_IMAGES, write_tiny

Models = dict[str, LoadedModel]

# --- images --------------------------------------------------------------------------------------


@pytest.fixture
def prepare(tiny_models: Models, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Make a model folder with other preparations, without its weights."""

    def make(options: dict[str, Any]) -> Path:
        shutil.copy(tiny_models["dinov2"].folder / "config.json", tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
        return tmp_path

    return make


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


# --- sounds --------------------------------------------------------------------------------------


def test_a_model_says_how_its_sounds_are_prepared(tiny_models: Models) -> None:
    assert tiny_models["whisper"].sound == SoundInput(16000, 16000, 400, 160, 20, 8000.0, 50)
    assert tiny_models["whisper"].image is None
    assert tiny_models["bert"].sound is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_length": 2}, r"200 frames.*expected 20 and 100"),
        ({"feature_size": 24}, r"24 mel bins"),
        ({"dither": 0.1}, r"dither 0\.1"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "names the extractor Wav2Vec2"),
        (None, "does not tell how its sounds are prepared"),
    ],
)
def test_sounds_that_cannot_be_prepared_alike_are_refused(
    tmp_path: Path, changes: dict[str, Any] | None, message: str
) -> None:
    path = write_tiny(tmp_path / "model", "whisper") / "preprocessor_config.json"
    if changes is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "model"), Cache(tmp_path / "cache"))
