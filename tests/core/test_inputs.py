"""Sounds as tensors: the frames that are read are those that the samples give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgelr.core.inputs import SoundInput
from edgelr.data.audio import log_mel

WHISPER = SoundInput(16000, 480000, 400, 160, 80, 8000.0, 1500)


@pytest.mark.parametrize(("samples", "hop"), [(16000, 160), (8000, 200), (16000, 320)])
def test_a_sound_has_a_frame_for_every_hop(samples: int, hop: int) -> None:
    sound = replace(WHISPER, samples=samples, hop=hop)
    read = log_mel(np.random.default_rng(0).standard_normal(100).astype(np.float32), sound)
    assert read.shape == (sound.mel_bins, sound.frames)
    assert sound.frames * hop == samples


def test_whisper_reads_two_frames_into_a_token() -> None:
    assert WHISPER.frames == 2 * WHISPER.tokens
