"""A CLIP that was trained, here and for real: the letter that it finds, before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.dual_encoder import DualEncoderRunner
from tests.helpers.letter_tokenizer import LETTERS, PROMPTS, TEMPLATE, write_images, write_matcher
from tests.helpers.run_exports import Recorder

KEPT = 0.7  # of the linears
CALIBRATED, JUDGED, LABELLED = 400, 1000, 1000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, and three folders of images that it was not trained on."""
    folder = tmp_path_factory.mktemp("letters")
    write_matcher(folder / "model")
    for seed, (name, count) in enumerate(
        (("calibration", CALIBRATED), ("evaluation", JUDGED), ("labelled", LABELLED)), start=1
    ):
        write_images(folder / name, count, seed)
    return folder


@pytest.mark.parametrize("keep", [KEPT, None], ids=["kept", "gate"])
def test_a_trained_model_finds_the_same_letters(letters: Path, keep: float | None) -> None:
    """On true labels of images that neither training nor calibration nor planning has seen."""
    settings = make_settings(
        model=str(letters / "model"),
        profile="generic-cpu",
        keep=keep,
        calibration=(str(letters / "calibration"),),
        evaluation=str(letters / "evaluation"),
        label_template=TEMPLATE,
    )
    cache, out = Cache(letters / "cache"), letters / f"bundle-{keep}"
    report = pipeline.export(settings, load_profile("generic-cpu"), out, Run(cache, Recorder()))
    validation = report.validation
    assert validation is not None
    assert validation.passed, validation.gate
    paths = sorted((letters / "labelled").rglob("*.png"))
    labels = np.array([LETTERS.index(path.parent.name) for path in paths])
    found = []
    for bundle in (pipeline.dense_bundle(settings, Run(cache, Recorder())), read_bundle(out)):
        runner = DualEncoderRunner.open(bundle, Execution(threads=1))
        scores = runner.logits(runner.embed(paths), runner.embed_texts(PROMPTS))
        found.append(scores.argmax(-1))
    before, after = (float((each == labels).mean()) for each in found)
    changed = float((found[0] != found[1]).mean())
    print(
        f"{report.plan.kept:.1%} kept: {before:.3f} -> {after:.3f} right, {changed:.1%} changed; "
        + ", ".join(f"{each.name} {each.value:.4f}" for each in validation.metrics)
    )
    assert before > 0.9  # of ten letters: it has learned them
    assert changed <= 0.03
    assert after >= before - 0.02
