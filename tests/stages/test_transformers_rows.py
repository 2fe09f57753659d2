"""Rows of every modality: what is chosen, cut, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.data.calibration import SourceCalibration
from edgelr.data.text import PROMPTS
from edgelr.device.profile import load_profile
from edgelr.model.generate import start_of
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import LOSSES
from edgelr.stages.transformers.rows import ROWS, Excerpt, rows_of
from edgelr.stages.transformers.rows.encoder_decoder import TARGET_TOKENS
from edgelr.stages.transformers.subject import ModelSubject, examine
from tests.helpers.audio import write_sounds
from tests.helpers.run_exports import (
    FILLING,
    IMAGE_PIVOT,
    MATCH_PIVOT,
    PAIR_PIVOT,
    quick_settings,
    session_cache,
)

Models = dict[str, LoadedModel]
DEVICE = load_profile("generic-cpu")
EVERY = ("llama", "bert", IMAGE_PIVOT, PAIR_PIVOT, "whisper", MATCH_PIVOT)
TOKENS = 200


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of what each modality reads; texts need none."""
    root = tmp_path_factory.mktemp("files")
    for label in ("cat", "dog"):
        (root / "photos" / label).mkdir(parents=True)
        for index in range(8):
            pixels = np.random.default_rng(index).integers(0, 256, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / label / f"{index}.png")
    photos, sounds = root / "photos", write_sounds(root / "sounds", 16)
    return {IMAGE_PIVOT: photos, MATCH_PIVOT: photos, "whisper": sounds}


def settings_of(model: LoadedModel, files: dict[str, Path], name: str, **more: object) -> Settings:
    folder = files.get(name)
    changes = {"calibration_length": None, "calibration": (str(folder),) if folder else (), **more}
    return quick_settings(model.folder, **changes)


def subject_of(models: Models, files: dict[str, Path], name: str) -> ModelSubject:
    return examine(models[name], settings_of(models[name], files, name), DEVICE)


def excerpt_of(subject: ModelSubject) -> Excerpt:
    return Excerpt(subject.texts.selection, TOKENS, "selection")


def test_every_modality_of_a_torch_model_has_rows_and_losses() -> None:
    kinds = {name for name in MODALITIES.names() if name != "tensors"}
    assert kinds <= set(ROWS.names())
    assert kinds <= set(LOSSES.names())


@pytest.mark.parametrize("name", [IMAGE_PIVOT, "whisper", MATCH_PIVOT])
def test_files_calibrate_or_select_or_judge(
    tiny_models: Models, files: dict[str, Path], name: str
) -> None:
    texts = subject_of(tiny_models, files, name).texts
    parts = [text or "" for _, text in texts.calibration] + [texts.selection, texts.evaluation]
    lines = [line for part in parts for line in part.splitlines()]
    assert len(lines) == len(set(lines)) == 16
    assert [len(part.splitlines()) for part in parts] == [8, 4, 4]


@pytest.mark.parametrize("name", EVERY)
def test_rows_have_about_the_tokens_that_are_asked_for(
    tiny_models: Models, files: dict[str, Path], name: str
) -> None:
    """Whole rows, and of a list of files as many as there are."""
    subject = subject_of(tiny_models, files, name)
    found = rows_of(subject.model).judging(subject, excerpt_of(subject))
    rows = len(found.mask)
    read = found.source_tokens if isinstance(found, SourceCalibration) else found.tokens
    whole = rows == len(subject.texts.selection.splitlines())
    assert whole or TOKENS - read / rows <= read <= TOKENS + 2 * read / rows


@pytest.mark.parametrize("name", EVERY)
def test_what_calibrates_is_the_same_again(
    tiny_models: Models,
    files: dict[str, Path],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    subject, run = subject_of(tiny_models, files, name), Run(session_cache(tmp_path_factory))
    rows, excerpt = rows_of(subject.model), excerpt_of(subject)
    first, again = (rows.calibration(subject, excerpt, run) for _ in range(2))
    assert first.key == again.key
    judged = rows.judging(subject, excerpt)
    own = isinstance(first, SourceCalibration)  # answers to judge on are others
    assert (first.key != judged.key) == own


@pytest.mark.parametrize("name", [PAIR_PIVOT, "whisper"])
def test_targets_begin_as_generation_does_and_are_not_longer_than_the_model(
    tiny_models: Models, files: dict[str, Path], name: str
) -> None:
    subject = subject_of(tiny_models, files, name)
    found = rows_of(subject.model).judging(subject, excerpt_of(subject))
    start = start_of(subject.model)
    assert set(found.inputs.target[:, 0].tolist()) == {start.tokens[0]}
    assert found.inputs.target.shape[1] <= min(TARGET_TOKENS + start.length, 72)


@pytest.mark.parametrize("name", EVERY)
def test_a_few_inputs_are_compared_each_alone(
    tiny_models: Models, files: dict[str, Path], name: str
) -> None:
    subject = subject_of(tiny_models, files, name)
    rows = rows_of(subject.model)
    found = rows.parity_inputs(subject, [rows.judging(subject, excerpt_of(subject))])
    kinds = [(each.dtype.kind, each.ndim) for each in found]
    wanted = {
        IMAGE_PIVOT: [("f", 3)] * 4,  # as many as there are
        "whisper": [("f", 2)] * 4,
        MATCH_PIVOT: [("f", 3), ("i", 1)] * 2 + [("f", 3)] * 2,  # in turns, of two prompts
    }
    assert kinds == wanted.get(name, [("i", 1)] * len(PROMPTS))


def test_tokens_are_masked_where_they_are_filled_in(
    tiny_models: Models, files: dict[str, Path]
) -> None:
    subject = subject_of(tiny_models, files, FILLING)
    found = rows_of(subject.model).judging(subject, excerpt_of(subject))
    assert (found.inputs == subject.model.mask_token).any(axis=1).all()


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "llama",
            {"context_tokens": 500},
            "--context-tokens asks for 500 .* takes 128 at most",
        ),
        ("bert", {"calibration_length": 90}, "--calibration-length asks for 90 .* 72 at most"),
        (IMAGE_PIVOT, {"context_tokens": 8}, "26 for every image. Leave the option away"),
        ("whisper", {"calibration_length": 40}, "makes 50 of every sound"),
        ("whisper", {"context_tokens": 99}, "takes 72 at most"),
        ("bert", {"labels": "labels.txt"}, "--labels is for models that compare images"),
        ("bert", {"calibration": ("self",)}, "--calibration self needs a model that generates"),
        (PAIR_PIVOT, {"calibration": ("self",)}, "--calibration self needs a model that generates"),
        (
            MATCH_PIVOT,
            {"calibration": ("self",)},
            "was given --calibration self; expected a folder",
        ),
    ],
)
def test_what_does_not_fit_a_model_is_refused_before_any_work(
    tiny_models: Models,
    files: dict[str, Path],
    name: str,
    option: dict[str, object],
    message: str,
) -> None:
    model = tiny_models[name]
    with pytest.raises(InputError, match=message):
        examine(model, settings_of(model, files, name, **option), DEVICE)
