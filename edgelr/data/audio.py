"""Sounds of a run: list the files, read them, and compute the log-mel features of a model.

Features are Whisper's (Radford et al., 2022, arXiv:2212.04356): a spectrogram of powers in bands
on the mel scale, as a logarithm that ends 80 dB below the loudest.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from importlib.util import find_spec
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.inputs import SoundInput
from edgelr.data.file_lists import SOUNDS, list_files, listed_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUIETEST = 1e-10  # power of silence
RANGE = 8.0  # decades between the loudest and the lowest value
_LINEAR_HZ = 1000.0  # Slaney's scale is linear below, with 200 Hz for 3 mel
_HZ_PER_MEL = 200 / 3
_MEL_STEP = np.log(6.4) / 27  # and above, 27 mel for a factor of 6.4


def list_sounds(source: Path) -> str:
    """List sound files; see ``file_lists.list_files``.

    Args:
        source: folder, ``.txt`` file that lists sounds, or ``.jsonl`` file of
            ``{"audio": path, "text": transcript}``, whose list has the text in its fourth field.

    Raises:
        InputError: there are no sounds, one is missing, or a line is not understood.
    """
    if source.suffix != ".jsonl" or not source.is_file():
        return list_files(source, SOUNDS)
    rows = [
        _read_line(source, number, line)
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
        if line.strip()
    ]
    if not rows:
        raise InputError(f"{source} holds no sounds; expected a JSON object per line.")
    return "\n".join(listed_line(source.parent / path, SOUNDS, [text]) for path, text in rows)


def transcripts(sounds: str) -> list[str]:
    """Read the transcripts of a list of sounds; none, unless every sound has one.

    Raises:
        EnvironmentProblem: there are transcripts, and jiwer is not installed.
    """
    rows = [line.split("\t") for line in sounds.splitlines()]
    said = [row[3] for row in rows if len(row) > 3]
    if len(said) < len(rows) or not said:
        return []
    if find_spec("jiwer") is None:
        raise EnvironmentProblem(
            "Word errors are counted by jiwer, which is not installed. Install it (pip install "
            "'edgelr[metrics]'), or give the folder of the sounds, without what is said in them."
        )
    return said


def read_sounds(paths: Sequence[Path], sound: SoundInput) -> NDArray[np.float32]:
    """Compute the features of sound files, ``(sounds, mel_bins, frames)``.

    Raises:
        InputError: a file is no sound that can be read.
    """
    return np.stack([log_mel(read_sound(path, sound.rate), sound) for path in paths])


def read_sound(path: Path, rate: int) -> NDArray[np.float32]:
    """Read a sound file: the mean of its channels, ``(samples,)`` in [-1, 1).

    A ``.wav`` file of integers is read without any library; others, as ``.wav`` files of floats and
    FLAC, by soundfile.

    Args:
        path: sound file.
        rate: samples per second of the result; a file with another rate is resampled.

    Raises:
        InputError: the file is no sound, is empty, needs soundfile and that is not installed, or
            has another rate and scipy is not installed.
    """
    try:
        channels, found = _read_integers(path)
    except (OSError, EOFError, wave.Error) as error:
        if find_spec("soundfile") is None:
            raise InputError(
                f"Cannot read the sound {path}: {error}. Expected a .wav file of integers (PCM, 8 "
                f"to 32 bits); soundfile, which reads .wav files of floats and FLAC, is not "
                f"installed. Install it (pip install 'edgelr[audio]'), or convert the file, for "
                f"instance: ffmpeg -i IN -ar {rate} -ac 1 OUT.wav"
            ) from error
        channels, found = _read_with_soundfile(path, rate)
    if not len(channels):
        raise InputError(f"The sound {path} is empty; expected samples. Remove it.")
    return _resampled(channels.mean(1), found, rate, path).astype(np.float32)


def _read_integers(path: Path) -> tuple[NDArray[np.float64], int]:
    """Read a ``.wav`` file of integers: ``(samples, channels)``, and samples per second."""
    with wave.open(str(path), "rb") as file:
        channels, width, rate, frames = file.getparams()[:4]
        return _numbers(file.readframes(frames), width).reshape(-1, channels), rate


def _read_with_soundfile(path: Path, rate: int) -> tuple[NDArray[np.float64], int]:
    """Read any sound file: ``(samples, channels)``, and samples per second."""
    import soundfile

    try:
        values, found = soundfile.read(path, dtype="float64", always_2d=True)
    except soundfile.SoundFileError as error:
        raise InputError(
            f"Cannot read the sound {path}: {error} Expected a .wav file (PCM or floats) or FLAC. "
            f"Convert it, for instance: ffmpeg -i IN -ar {rate} -ac 1 OUT.wav"
        ) from error
    return values, found


def log_mel(samples: NDArray[np.float32], sound: SoundInput) -> NDArray[np.float32]:
    """Compute the log-mel features of ``(samples,)``, ``(mel_bins, frames)``."""
    given = samples[: sound.samples].astype(np.float64)
    given = np.pad(given, (0, sound.samples - len(given)))
    given = np.pad(given, sound.window // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(given, sound.window)[:: sound.hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(sound.window) / sound.window)
    power = np.abs(np.fft.rfft(windows[: sound.frames] * hann)) ** 2  # (frames, frequencies)
    decades = np.log10(np.maximum(mel_filters(sound) @ power.T, QUIETEST))
    decades = np.maximum(decades, decades.max() - RANGE)
    values: NDArray[np.float32] = ((decades + 4) / 4).astype(np.float32)
    return values


def mel_filters(sound: SoundInput) -> NDArray[np.float64]:
    """Compute triangles of equal area over the frequencies, ``(mel_bins, window // 2 + 1)``.

    Each begins in the middle of the one before, and ends in the middle of the next, on a scale that
    is linear up to 1 kHz and logarithmic beyond (Slaney, Auditory Toolbox, 1998).
    """
    frequencies = np.linspace(0, sound.rate / 2, sound.window // 2 + 1)
    edges = _hertz(np.linspace(0, _mel(sound.highest_hz), sound.mel_bins + 2))
    low, middle, high = (edges[start : start + sound.mel_bins, None] for start in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles * 2 / (high - low)


def _mel(hertz: float) -> float:
    linear = min(hertz, _LINEAR_HZ) / _HZ_PER_MEL
    return float(linear + np.log(max(hertz, _LINEAR_HZ) / _LINEAR_HZ) / _MEL_STEP)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    bend = _LINEAR_HZ / _HZ_PER_MEL
    linear = np.minimum(mel, bend) * _HZ_PER_MEL
    hertz: NDArray[np.float64] = linear * np.exp(_MEL_STEP * np.maximum(mel - bend, 0))
    return hertz


def _numbers(content: bytes, width: int) -> NDArray[np.float64]:
    """Read little-endian samples of ``width`` bytes as [-1, 1); single bytes have no sign."""
    if width == 1:
        return np.frombuffer(content, np.uint8).astype(np.float64) / 128 - 1
    whole = np.zeros((len(content) // width, 4), np.uint8)  # (samples, bytes), lowest first
    whole[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    values: NDArray[np.float64] = whole.view("<i4")[:, 0] / 2.0**31
    return values


def _resampled(
    values: NDArray[np.float64], found: int, rate: int, path: Path
) -> NDArray[np.float64]:
    if found == rate:
        return values
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise InputError(
            f"The sound {path} has {found:,} samples per second; expected {rate:,}, because scipy "
            f"is not installed. Resample it (ffmpeg -i IN -ar {rate} OUT.wav), or install scipy."
        ) from error
    common = gcd(found, rate)
    resampled: NDArray[np.float64] = resample_poly(values, rate // common, found // common)
    return resampled


def _read_line(source: Path, number: int, line: str) -> tuple[str, str]:
    """Read the path and the text of a line; line breaks in the text become spaces."""
    try:
        read: Any = json.loads(line)
        path, text = str(read["audio"]), " ".join(str(read["text"]).split())
        if not any(map(str.isalnum, text)):
            raise ValueError("nothing is said")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{source}, line {number} is not {{"audio": path, "text": what is said}}. Expected one '
            f"JSON object per line. Mend that line, or give a folder of sounds."
        ) from error
    return path, text
