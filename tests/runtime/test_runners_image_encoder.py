"""Image encoders and dual encoders: files become pixels, and pixels vectors and choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.data.images import read_pixels
from edgelr.data.text import EvaluationSize
from edgelr.runtime.evaluators import Known
from edgelr.runtime.requests import Evaluation
from edgelr.runtime.runners.dual_encoder import DualEncoderRunner
from edgelr.runtime.runners.files import images_of
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner
from tests.helpers.runtime_bundles import write_modality, write_source
from tests.helpers.runtime_graphs import (
    IMAGE,
    MATCHING,
    embedding_table,
    encoder_model,
    image_weight,
    write_bundle,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = write_source(tmp_path, "image_encoder")
    assert folder is not None
    return folder


def evaluation(bundle: ExportBundle, source: Path | None) -> Evaluation:
    return Evaluation(bundle, bundle, source, EvaluationSize(images=4))


def colors(images: Path) -> np.ndarray:
    pixels = read_pixels(sorted(images.rglob("*.png")), IMAGE)
    return pixels.mean((2, 3)) @ image_weight()


def test_labels_of_files_are_those_of_their_pixels(tmp_path: Path, images: Path) -> None:
    runner = ImageEncoderRunner.open(write_modality(tmp_path / "bundle", "image_encoder"))
    paths = sorted(images.rglob("*.png"))
    np.testing.assert_allclose(runner.decide(paths, batch=4), colors(images), atol=1e-6)


def test_files_are_spread_over_all_and_their_folders_may_tell_the_truth(
    tmp_path: Path, images: Path
) -> None:
    bundle = write_modality(tmp_path / "bundle", "image_encoder")
    runner = ImageEncoderRunner.open(bundle)
    found = runner.samples(evaluation(bundle, images))
    assert isinstance(found, list)
    assert len(found) == 4
    for path in sorted(images.glob("*.png")):
        label = images / f"label {int(path.stem) % 2}"
        label.mkdir(exist_ok=True)
        path.rename(label / path.name)
    told = runner.samples(evaluation(bundle, images))
    assert isinstance(told, Known)
    assert set(told.truths) == {0, 1}


def test_a_model_of_images_needs_some(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "image_encoder")
    with pytest.raises(InputError, match="reads images, and none are given"):
        images_of(evaluation(bundle, None))


def test_graphs_of_another_kind_are_refused(tmp_path: Path) -> None:
    text = write_bundle(tmp_path / "text", encoder_model(), image=IMAGE)
    with pytest.raises(InputError, match=r"its inputs are .*input_ids.*Expected pixel_values"):
        ImageEncoderRunner.open(text)
    dual = DualEncoderRunner.open(write_modality(tmp_path / "dual", "dual_encoder"))
    with pytest.raises(InputError, match=r"no dual encoder .*Expected \['attention_mask', 'input"):
        DualEncoderRunner(dual.session, dual.texts, IMAGE, MATCHING)


def test_a_prompt_is_chosen_by_scaled_cosines(tmp_path: Path, images: Path) -> None:
    bundle = write_modality(tmp_path / "dual", "dual_encoder")
    runner = DualEncoderRunner.open(bundle)
    paths, prompts = runner.samples(evaluation(bundle, images))
    assert (len(paths), prompts) == (4, MATCHING.prompts)
    found = runner.logits(runner.embed(sorted(images.rglob("*.png"))), runner.embed_texts(prompts))
    table = embedding_table()
    texts = np.stack([table[[1, 7]].sum(0), table[[3, 8]].sum(0), table[9]])
    first, second = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (colors(images), texts)
    )
    np.testing.assert_allclose(found, MATCHING.scale * first @ second.T, atol=1e-5)


def test_a_dual_encoder_without_prompts_cannot_choose(tmp_path: Path, images: Path) -> None:
    bundle = write_modality(tmp_path / "dual", "dual_encoder")
    runner = DualEncoderRunner.open(bundle)
    nothing = replace(bundle.manifest, matching=replace(MATCHING, prompts=()))
    with pytest.raises(InputError, match="names no prompts"):
        runner.samples(evaluation(ExportBundle(bundle.folder, nothing), images))
