"""Rows of a run: texts share the tokens, the model writes its own part once, and none is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers import calibration_data
from edgelr.stages.transformers.calibration_data import calibrate, selection, to_heal_on
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.subject import ModelSubject, examine
from tests.conftest import SENTENCES
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

ROW = 32  # tokens of a row of ``quick_settings``
FEW = 64  # tokens that are sampled beside a text


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def dense(tiny_decoder: LoadedModel, cache: Cache) -> DenseExport:
    return dense_export(tiny_decoder, Run(cache, Recorder()))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two texts of more tokens than a test asks for."""
    folder = tmp_path_factory.mktemp("texts")
    for index, name in enumerate(("first", "second")):
        lines = SENTENCES[index::2]
        (folder / f"{name}.txt").write_text("\n".join(lines * 40), encoding="utf-8")
    return str(folder / "first.txt"), str(folder / "second.txt")


def subject_of(model: LoadedModel, **changes: Any) -> ModelSubject:
    return examine(model, quick_settings(model.folder, **changes), load_profile("generic-cpu"))


def test_files_share_the_tokens_evenly(
    tiny_decoder: LoadedModel, dense: DenseExport, files: tuple[str, str], tmp_path: Path
) -> None:
    recorder, subject = Recorder(), subject_of(tiny_decoder, calibration=files)
    parts = calibrate(subject, dense, Run(Cache(tmp_path), recorder))
    assert [(part.description, part.tokens, part.length) for part in parts] == [
        (files[0], 256, ROW),
        (files[1], 256, ROW),
    ]
    assert parts[0].key != parts[1].key
    assert recorder.stages == []


def test_files_take_what_sampling_leaves(
    tiny_decoder: LoadedModel,
    dense: DenseExport,
    files: tuple[str, str],
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration_data, "SAMPLE_TOKENS", FEW)
    subject = subject_of(tiny_decoder, calibration=(files[0], "self", files[1]))
    parts = calibrate(subject, dense, Run(cache, Recorder()))
    names = [part.description for part in parts]
    assert names == [files[0], "sampled from the model", files[1]]
    assert [part.tokens for part in parts] == [224, FEW, 224]


def test_what_the_model_writes_is_found_again_and_written_anew_for_another_seed(
    tiny_decoder: LoadedModel, dense: DenseExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_data, "SAMPLE_TOKENS", FEW)
    own, subject, keys, worked = Cache(tmp_path), subject_of(tiny_decoder), [], []
    for seed in (0, 0, 1):
        recorder = Recorder()
        (rows,) = calibrate(subject, dense, Run(own, recorder, seed))
        keys.append(rows.key)
        worked.append("sampling text" in recorder.stages)
        assert (rows.tokens, rows.length) == (512, ROW)  # alone, it is all that calibrates
        begun = subject.tokenizer.encode("").ids
        assert (rows.inputs[:, : len(begun)] == begun).all()
    assert worked == [True, False, True]
    assert keys[0] == keys[1] != keys[2]


def test_what_the_model_writes_is_healed_on_in_longer_rows(
    tiny_decoder: LoadedModel, dense: DenseExport, files: tuple[str, str], cache: Cache
) -> None:
    run, subject = Run(cache, Recorder()), subject_of(tiny_decoder, calibration=("self", files[0]))
    parts = calibrate(subject, dense, run)
    texts = to_heal_on(subject, dense, parts, run)
    asked, longest = sum(part.tokens for part in parts), tiny_decoder.longest_text
    assert texts[1] is parts[1]
    assert texts[0].length == min(512, longest) > parts[0].length
    assert asked <= texts[0].tokens < asked + texts[0].length


def test_a_text_alone_is_healed_on_as_it_calibrates(
    tiny_decoder: LoadedModel, dense: DenseExport, files: tuple[str, str], tmp_path: Path
) -> None:
    run, subject = Run(Cache(tmp_path), Recorder()), subject_of(tiny_decoder, calibration=files)
    parts = calibrate(subject, dense, run)
    assert to_heal_on(subject, dense, parts, run) == parts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("longest", [64, 128])
def test_plans_are_judged_on_the_second_half_of_what_is_judged_on(
    tiny_decoder: LoadedModel,
    files: tuple[str, str],
    longest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration_data, "SELECTION_TOKENS", 400)
    subject = subject_of(tiny_decoder, evaluation=files[1], calibration=files[:1])
    subject = replace(subject, model=replace(subject.model, longest_text=longest))
    found, judged = selection(subject), Path(files[1]).read_text(encoding="utf-8")
    assert found.description == f"{files[1]}, second half"
    assert found.length == longest  # less than what is usual
    assert 0 < found.tokens <= 400
    middle = subject.tokenizer.encode(judged[len(judged) // 2 :], add_special_tokens=False).ids
    assert found.inputs[0].tolist() == middle[:longest]


def test_an_encoder_is_judged_on_whole_sentences(
    tiny_encoder: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_data, "SELECTION_TOKENS", 400)
    subject = subject_of(tiny_encoder)
    found = selection(subject)
    lengths = found.mask.sum(1)
    assert len(set(lengths.tolist())) > 1  # of lengths of their own, and not chunks
    assert lengths.max() <= tiny_encoder.longest_text
    assert 0 < found.tokens < 400 + tiny_encoder.longest_text
