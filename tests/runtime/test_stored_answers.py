"""Answers that travel with a bundle: they tell its own graph from every other one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import STORED_ANSWERS, ExportBundle
from edgelr.core.errors import InputError
from edgelr.runtime import stored_answers
from edgelr.runtime.stored_answers import same_answers, store_answers
from tests.helpers.runtime_bundles import reference_answers, write_modality

MODALITIES = ("decoder", "text_encoder", "image_encoder", "dual_encoder", "tensors",
              "encoder_decoder", "speech")  # fmt: skip


def stored(folder: Path, modality: str) -> ExportBundle:
    bundle = write_modality(folder / modality, modality)
    np.savez(folder / "answers.npz", **reference_answers(modality))
    (bundle.folder / STORED_ANSWERS).parent.mkdir(exist_ok=True)
    store_answers(bundle, folder / "answers.npz")
    return bundle


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_bundle_gives_its_own_answers_again_and_another_one_does_not(
    tmp_path: Path, modality: str
) -> None:
    bundle = stored(tmp_path, modality)
    found = same_answers(bundle)
    assert found.passed
    assert found.max_abs_error <= 1e-6
    assert "onnxruntime" in found.against
    other = write_modality(tmp_path / "other", modality, seed=1)
    (other.folder / STORED_ANSWERS).parent.mkdir(exist_ok=True)
    (other.folder / STORED_ANSWERS).write_bytes((bundle.folder / STORED_ANSWERS).read_bytes())
    assert not same_answers(other).passed


def test_what_is_stored_is_what_the_bundle_answered_and_not_what_it_was_compared_with(
    tmp_path: Path,
) -> None:
    bundle = write_modality(tmp_path / "bundle", "text_encoder")
    answers = reference_answers("text_encoder", seed=1)  # of another model
    np.savez(tmp_path / "answers.npz", **answers)
    (bundle.folder / STORED_ANSWERS).parent.mkdir(exist_ok=True)
    store_answers(bundle, tmp_path / "answers.npz")
    assert same_answers(bundle).passed


def test_of_large_outputs_some_values_are_stored_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_answers, "VALUES", 5)
    bundle = stored(tmp_path, "decoder")
    with np.load(bundle.folder / STORED_ANSWERS) as file:
        arrays = {name: file[name] for name in file}
    values = arrays["logits_4"]
    assert 0 < np.isfinite(values).sum() <= 5
    assert same_answers(bundle).passed
    values[np.isfinite(values)] += 0.1
    np.savez(bundle.folder / STORED_ANSWERS, **arrays)
    found = same_answers(bundle)
    assert not found.passed
    assert found.max_abs_error == pytest.approx(0.1, abs=1e-5)


def test_a_bundle_without_answers_is_told_what_to_do(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder")
    with pytest.raises(InputError, match="name the original with --against"):
        same_answers(bundle)
