"""Without --precision the default recipe mixes precisions, for every kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS
from edgelr.device.profile import load_profile
from tests.conftest import MakeModel
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

DATA: dict[str, dict[str, Any]] = {
    "llama": {}, "bert": {}, "t5": {},
    "vit:image-classification": {"calibration_length": None, "calibration_tokens": 1000},
    "resnet": {"calibration_length": None, "calibration_tokens": 1000},
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def photos(folder: Path) -> Path:
    """Noise."""
    folder.mkdir()
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("profile", ["generic-cpu", "jetson"])
def test_a_bundle_of_mixed_precisions_answers_like_torch(
    name: str, profile: str, make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    family, _, task = name.partition(":")
    model = make_model(family, task) if task else make_model(family)
    given = dict(DATA[name])
    if model.image is not None:
        given["calibration"] = (str(photos(tmp_path / "photos")),)
    keep = 0.9 if name == "resnet" else 0.5  # its convolutions stay in float
    settings = quick_settings(model.folder, precision=None, profile=profile, keep=keep, **given)
    out = tmp_path / "bundle"
    report = pipeline.export(settings, load_profile(profile), out, Run(cache, Recorder()))
    parity = report.validation.parity
    assert parity is not None
    assert parity.passed
    stored = {site.candidate.precision for site in report.plan.sites}
    if name == "resnet":
        assert not stored & set(LAYOUTS)
    else:
        assert stored & set(LAYOUTS)
        assert parity.twin_max_error is not None
        assert 0 < parity.twin_max_error < 0.1
