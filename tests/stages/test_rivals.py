"""Rivals of an export: made, judged and timed as the bundle is, and not twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.report.schema import from_json
from edgelr.stages import bundle as stage
from edgelr.stages.sources.transformers import ModelSource
from tests.conftest import SENTENCES
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

Models = dict[str, LoadedModel]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return str(folder)


def exported(
    model: LoadedModel, data: str, out: Path, cache: Cache, profile: str = "generic-cpu"
) -> Report:
    aim = {"keep": 0.8, "precision": "float32"}
    lengths = {"calibration_tokens": None, "calibration_length": None} if model.image else {}
    asked = {"calibration": (data,), "profile": profile, "rivals": True, **lengths}
    settings = quick_settings(model.folder, **aim, **asked)
    run = Run(cache, Recorder())
    report = pipeline.export(settings, load_profile(profile), out, run, source=ModelSource(model))
    written = out / "reports" / f"{report.profile}.json"
    assert from_json(written.read_text(encoding="utf-8")) == report
    return report


@pytest.mark.parametrize("name", ["llama", "bert", "vit:image-classification"])
def test_the_original_in_int8_and_int4_stands_beside_the_bundle(
    tiny_models: Models, cache: Cache, text: str, photos: str, tmp_path: Path, name: str
) -> None:
    report = exported(tiny_models[name], photos if "image" in name else text, tmp_path / "b", cache)
    assert report.rivals is not None
    assert report.validation is not None
    assert report.validation.gate is not None
    int8, int4 = report.rivals.quantized
    assert (int8.precision, int4.precision) == ("int8", "int4")
    assert int4.file_bytes < int8.file_bytes < report.dense_file_bytes
    for rival in (int8, int4):
        assert [each.name for each in rival.metrics] == [
            each.name for each in report.validation.metrics
        ]
        assert rival.gate.limit == report.validation.gate.limit
        assert rival.fits
        assert rival.comparison is not None  # this machine is the device
        assert report.comparison is not None
        assert rival.comparison.ratios.keys() == report.comparison.ratios.keys()
    assert "rivals" in report.seconds
    assert report.rivals.told.startswith("Ship ")
    told = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    assert report.rivals.told in told
    assert "rivals" in json.loads((tmp_path / "b" / "reports" / "generic-cpu.json").read_text())


def test_for_another_device_rivals_are_predicted_and_judged_once(
    tiny_decoder: LoadedModel,
    cache: Cache,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = exported(tiny_decoder, text, tmp_path / "one", cache, "raspberry-pi-5-8gb")
    assert first.rivals is not None
    assert first.prediction is not None
    for rival in first.rivals.quantized:
        assert rival.comparison is None
        assert rival.prediction is not None
        assert [each.key for each in rival.prediction.phases] == [
            each.key for each in first.prediction.phases
        ]
        assert rival.prediction.phases[0].dense_ms == first.prediction.phases[0].dense_ms
    judged: list[str] = []
    accuracy = stage.calls.accuracy

    def counted(dense: object, bundle: object, *rest: object, **named: object) -> object:
        judged.append(str(bundle))
        return accuracy(dense, bundle, *rest, **named)

    monkeypatch.setattr(stage.calls, "accuracy", counted)
    again = exported(tiny_decoder, text, tmp_path / "two", cache, "raspberry-pi-5-8gb")
    assert again.rivals == first.rivals
    assert len(judged) == 1  # the bundle alone


def test_convolutions_have_no_rival_and_the_report_says_so(
    tiny_models: Models, cache: Cache, photos: str, tmp_path: Path
) -> None:
    report = exported(tiny_models["resnet"], photos, tmp_path / "b", cache)
    assert report.rivals is not None
    assert report.rivals.quantized == ()
    assert report.rivals.ship is None
    assert report.rivals.told.startswith("There is no rival: 12 of the 12 linears are convolutions")
    page = (tmp_path / "b" / "reports" / "generic-cpu.html").read_text(encoding="utf-8")
    assert "There is no rival" in page
    assert read_bundle(tmp_path / "b", verify=True).manifest.gate_passed is not None
