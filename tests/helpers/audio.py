"""Sounds for tests, made here: tones that rise or fall, with a little noise."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np

RATE = 16000


def chirp(seconds: float, seed: int = 0) -> np.ndarray:
    """Make a tone that goes from one pitch to another, ``(samples,)`` float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(RATE * seconds)) / RATE
    low, high = rng.uniform(150, 3000, 2)
    phase = 2 * np.pi * (low * time + (high - low) * time**2 / (2 * seconds))
    made: np.ndarray = 0.4 * np.sin(phase) + 0.02 * rng.standard_normal(len(time))
    return made.astype(np.float32)


def write_wave(path: Path, samples: np.ndarray, width: int = 2, rate: int = RATE) -> Path:
    """Write samples in [-1, 1), ``(samples,)`` or ``(samples, channels)``, as integers."""
    whole = np.round(samples.astype(np.float64) * 2.0 ** (8 * width - 1)).astype("<i4")
    if width == 1:
        whole += 128  # single bytes have no sign
    with wave.open(str(path), "wb") as file:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        file.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(whole.reshape(-1, 1).view(np.uint8)[:, :width].tobytes())
    return path


def write_said(folder: Path, count: int) -> Path:
    """Write sounds, and beside their folder what is said in them: one word and its number."""
    write_sounds(folder / "sounds", count)
    rows = [{"audio": f"sounds/{index:02}.wav", "text": f"Word {index}."} for index in range(count)]
    path = folder / "said.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_sounds(folder: Path, count: int) -> Path:
    """Write so many sounds of about half a second into a new folder."""
    folder.mkdir(parents=True)
    for index in range(count):
        write_wave(folder / f"{index:02}.wav", chirp(0.4 + 0.02 * index, seed=index))
    return folder
