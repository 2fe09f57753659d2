"""A classifier of images that was trained, here and for real: what its labels are worth after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner
from tests.helpers.letter_tokenizer import LETTERS, write_classifier, write_images
from tests.helpers.run_exports import Recorder

KEPT = 0.7  # of the linears
CALIBRATED, JUDGED, LABELLED = 400, 1000, 1000

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Exported:
    report: Report
    original: np.ndarray
    bundle: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module", params=["vit", pytest.param("resnet", marks=pytest.mark.slow)])
def letters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, and three folders of images that it was not trained on."""
    folder = tmp_path_factory.mktemp("letters")
    write_classifier(folder / "model", request.param)
    for seed, (name, count) in enumerate(
        (("calibration", CALIBRATED), ("evaluation", JUDGED), ("labelled", LABELLED)), start=1
    ):
        write_images(folder / name, count, seed)
    return folder


@pytest.fixture(scope="module", params=[KEPT, None], ids=["kept", "gate"])
def exported(request: pytest.FixtureRequest, letters: Path) -> Exported:
    """Keep a share of the linears, or as little as the accuracy gate lets through."""
    settings = make_settings(
        model=str(letters / "model"),
        profile="generic-cpu",
        keep=request.param,
        calibration=(str(letters / "calibration"),),
        evaluation=str(letters / "evaluation"),
    )
    cache = Cache(letters / "cache")
    profile, out = load_profile("generic-cpu"), letters / f"bundle-{request.param}"
    report = pipeline.export(settings, profile, out, Run(cache, Recorder()))
    dense = pipeline.dense_bundle(settings, Run(cache, Recorder()))
    paths = sorted((letters / "labelled").rglob("*.png"))
    before, after = (
        ImageEncoderRunner.open(bundle, Execution(threads=1)).decide(paths).argmax(-1)
        for bundle in (dense, read_bundle(out))
    )
    labels = np.array([LETTERS.index(path.parent.name) for path in paths])
    return Exported(report, before, after, labels)


def test_a_bundle_of_a_trained_model_passes(exported: Exported) -> None:
    validation = exported.report.validation
    assert validation is not None
    assert validation.parity is not None
    assert validation.parity.passed
    assert validation.gate is not None
    assert validation.gate.passed, validation.gate
    assert exported.report.plan.kept <= KEPT


def test_a_trained_model_keeps_its_accuracy(exported: Exported) -> None:
    """On true labels of images that neither training nor calibration nor planning has seen."""
    accuracies = [
        float((labels == exported.labels).mean()) for labels in (exported.original, exported.bundle)
    ]
    changed = float((exported.original != exported.bundle).mean())
    print(
        f"{exported.report.plan.kept:.1%} kept: accuracy {accuracies[0]:.3f} -> "
        f"{accuracies[1]:.3f}, {changed:.1%} of {len(exported.labels)} labels changed"
    )
    assert accuracies[0] > 0.9  # of ten letters: it has learned them
    assert changed <= 0.03  # none, where the gate wants to be sure of 2 %
    assert accuracies[1] >= accuracies[0] - 0.02
