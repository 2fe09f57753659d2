"""Sounds of a run: how they are listed and read, and that their features are transformers'."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import transformers

from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.inputs import SoundInput
from edgelr.core.settings import Settings
from edgelr.data import audio as sounds
from edgelr.data.audio import (
    list_sounds,
    log_mel,
    mel_filters,
    read_sound,
    read_sounds,
    transcripts,
)
from edgelr.data.file_lists import listed
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.transformers.rows.speech import USUAL_SOUNDS
from edgelr.stages.transformers.subject import examine
from tests.helpers.audio import chirp, write_sounds, write_wave
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import quick_settings

TINY = SoundInput(16000, 16000, 400, 160, 20, 8000.0, 50)
WHOLE = SoundInput(16000, 480000, 400, 160, 80, 8000.0, 1500)  # that of Whisper
SNIPPET = SNIPPETS / "transcribe.py"


def extractor(sound: SoundInput) -> transformers.WhisperFeatureExtractor:
    return transformers.WhisperFeatureExtractor(
        feature_size=sound.mel_bins, chunk_length=sound.samples // sound.rate
    )


# --- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sound", "seconds"),
    [(TINY, 0.31), (TINY, 1.0), (TINY, 1.7), (WHOLE, 2.3)],
    ids=["shorter", "as long", "longer", "of half a minute"],
)
def test_features_are_those_of_transformers(sound: SoundInput, seconds: float) -> None:
    samples = chirp(seconds)
    expected = extractor(sound)(samples, sampling_rate=sound.rate, return_tensors="np")
    found = log_mel(samples, sound)
    assert found.dtype == np.float32
    assert found.shape == (sound.mel_bins, sound.frames)
    np.testing.assert_allclose(found, expected["input_features"][0], atol=1e-4)


def test_silence_has_features() -> None:
    found = log_mel(np.zeros(9, np.float32), TINY)
    assert set(found.flatten().tolist()) == {-1.5}  # ten decades below, and (x + 4) / 4


@pytest.mark.parametrize("sound", [TINY, WHOLE, replace(WHOLE, mel_bins=128)])
def test_mel_filters_are_those_of_transformers(sound: SoundInput) -> None:
    np.testing.assert_allclose(mel_filters(sound), extractor(sound).mel_filters.T, atol=1e-12)


def test_the_example_of_the_card_prepares_sounds_alike(tmp_path: Path) -> None:
    example = runpy.run_path(str(SNIPPET))
    path = write_wave(tmp_path / "a.wav", chirp(0.7))
    samples = example["read_wave"](str(path), TINY.rate)
    np.testing.assert_allclose(samples, read_sound(path, TINY.rate), atol=1e-7)
    prepared = example["prepare"](samples, asdict(TINY))
    np.testing.assert_allclose(prepared, read_sounds([path], TINY), atol=1e-6)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_read(tmp_path: Path, width: int) -> None:
    samples = chirp(0.05)
    found = read_sound(write_wave(tmp_path / "a.wav", samples, width), 16000)
    np.testing.assert_allclose(found, samples, atol=2.0 ** (1 - 8 * width) + 1e-7)
    assert np.abs(found).max() > 0.3


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = chirp(0.05), chirp(0.05, seed=1)
    path = write_wave(tmp_path / "a.wav", np.stack([left, right], axis=1))
    np.testing.assert_allclose(read_sound(path, 16000), (left + right) / 2, atol=1e-4)


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    """A tone stays that tone: its spectrum has its peak at the same frequency."""
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    found = read_sound(write_wave(tmp_path / "a.wav", tone, rate=44100), 16000)
    assert len(found) == 16000
    assert np.abs(np.fft.rfft(found)).argmax() == 1000


def test_another_rate_is_refused_without_scipy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wave(tmp_path / "a.wav", chirp(0.05), rate=8000)
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(InputError, match=r"8,000 samples per second; expected 16,000.*scipy"):
        read_sound(path, 16000)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no sound at all", "Cannot read the sound.*PCM"), (b"", "Cannot read"), (None, "is empty")],
)
def test_what_is_no_sound_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.wav"
    if content is None:
        write_wave(path, np.zeros(0))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sound(path, 16000)


def test_flac_has_the_samples_of_the_same_wave_file(tmp_path: Path) -> None:
    integers = write_wave(tmp_path / "a.wav", np.stack([chirp(0.3), chirp(0.3, seed=1)], axis=1))
    values, rate = soundfile.read(integers, dtype="int16")
    soundfile.write(tmp_path / "a.flac", values, rate, subtype="PCM_16")
    assert (tmp_path / "a.flac").read_bytes()[:4] == b"fLaC"
    found = read_sound(tmp_path / "a.flac", rate)
    assert np.array_equal(found, read_sound(integers, rate))
    np.testing.assert_array_equal(
        read_sounds([tmp_path / "a.flac"], TINY), read_sounds([integers], TINY)
    )


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_wave_files_of_floats_are_read(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(0.2), 16000, subtype=subtype)
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav", 16000), chirp(0.2))


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.wav", "FLOAT")])
def test_without_soundfile_only_integers_are_read_and_the_extra_is_named(
    name: str, subtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    integers = write_wave(tmp_path / "integers.wav", chirp(0.05))
    soundfile.write(tmp_path / name, chirp(0.05), 16000, subtype=subtype)
    monkeypatch.setattr(sounds, "find_spec", lambda _: None)
    assert len(read_sound(integers, 16000)) == 800
    with pytest.raises(InputError, match=r"PCM, 8 to 32 bits.*edgelr\[audio\].*ffmpeg"):
        read_sound(tmp_path / name, 16000)


# --- lists ---------------------------------------------------------------------------------------


def test_a_folder_of_sounds_is_listed(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "sounds", 3)
    (folder / "notes.txt").write_text("no sound")
    soundfile.write(folder / "03.flac", chirp(0.2), 16000)
    found = list_sounds(folder)
    assert [path.name for path in listed(found)] == ["00.wav", "01.wav", "02.wav", "03.flac"]
    assert transcripts(found) == []
    with pytest.raises(InputError, match=r"missing does not exist; expected a folder of sounds"):
        list_sounds(tmp_path / "missing")


def test_what_is_said_stays_beside_its_sound(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "sounds", 2)
    said = tmp_path / "said.jsonl"
    rows = (("sounds/01.wav", "Two,\n\tthree."), ("sounds/00.wav", "One"))
    lines = [json.dumps({"audio": audio, "text": text}) for audio, text in rows]
    said.write_text("\n\n".join(lines), encoding="utf-8")
    found = list_sounds(said)
    assert listed(found) == [folder / "01.wav", folder / "00.wav"]
    assert transcripts(found) == ["Two, three.", "One"]
    (tmp_path / "again.txt").write_text(found, encoding="utf-8")
    assert list_sounds(tmp_path / "again.txt") == found
    assert transcripts(f"{found}\n{list_sounds(folder)}") == []  # not of all


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio": "sounds/00.wav"}', r"line 1 is not .*audio.*text"),
        ("sounds/00.wav", "line 1 is not"),
        ('{"audio": "sounds/00.wav", "text": "..."}', "line 1 is not"),
        ('{"audio": "gone.wav", "text": "One"}', r"gone\.wav cannot be read.*Mend the list"),
        ("", "holds no sounds"),
    ],
)
def test_a_line_that_names_no_sound_is_refused(tmp_path: Path, line: str, message: str) -> None:
    write_sounds(tmp_path / "sounds", 1)
    (tmp_path / "said.jsonl").write_text(line)
    with pytest.raises(InputError, match=message):
        list_sounds(tmp_path / "said.jsonl")


def test_what_counts_errors_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "find_spec", lambda _: None)
    assert transcripts("a.wav\t1\t2") == []
    with pytest.raises(EnvironmentProblem, match=r"jiwer.*edgelr\[metrics\]"):
        transcripts("a.wav\t1\t2\tOne")


# --- lengths -------------------------------------------------------------------------------------


def quick(model: LoadedModel, folder: Path, **changes: Any) -> Settings:
    options = {"calibration": (str(folder),), "calibration_length": None}
    return quick_settings(model.folder, **{**options, **changes})


def test_a_sound_has_a_length_of_its_own(
    tiny_models: dict[str, LoadedModel], tmp_path: Path
) -> None:
    """The text that is written has another, which may be asked for."""
    model, device = tiny_models["whisper"], load_profile("jetson")
    folder = write_sounds(tmp_path / "sounds", 16)
    for asked, context in ((None, 72), (30, 30)):
        subject = examine(model, quick(model, folder, context_tokens=asked), device)
        assert subject.context_tokens == subject.device.context_tokens == context
        assert subject.device.prefill_tokens == subject.shape.source_tokens == TINY.tokens
    assert subject.usual_tokens(1) == USUAL_SOUNDS * TINY.tokens
    (_, calibrating), texts = subject.texts.calibration[0], subject.texts
    parts = [listed(part) for part in (calibrating, texts.evaluation, texts.selection)]
    assert [len(part) for part in parts] == [8, 4, 4]
    assert {path for part in parts for path in part} == set(folder.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"calibration_length": 8},
            r"--calibration-length asks for 8.* makes 50 of every sound",
        ),
        ({"context_tokens": 73}, "--context-tokens asks for 73 tokens; .* takes 72"),
        ({"calibration": ()}, "A model that reads sounds was given none; expected a folder"),
        ({"calibration": ("self",)}, "given --calibration self"),
    ],
)
def test_what_does_not_fit_sounds_is_refused(
    tiny_models: dict[str, LoadedModel], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = tiny_models["whisper"]
    folder = write_sounds(tmp_path / "sounds", 16)
    with pytest.raises(InputError, match=message):
        examine(model, quick(model, folder, **changes), load_profile("generic-cpu"))
