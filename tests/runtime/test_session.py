from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import save

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError, ProviderError
from edgelr.runtime import session
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.runtime.session import open_session
from tests.helpers.runtime_graphs import (
    VOCABULARY,
    decoder_model,
    encoder_model,
    write_bundle,
)


@pytest.fixture
def decoder(tmp_path: Path) -> DecoderRunner:
    bundle = write_bundle(tmp_path / "decoder", decoder_model())
    return DecoderRunner.open(bundle, Execution(threads=1))


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoderRunner:
    return TextEncoderRunner.open(write_bundle(tmp_path / "encoder", encoder_model()), threads=1)


def test_a_session_tells_what_really_runs(decoder: DecoderRunner) -> None:
    session = decoder.session
    assert (session.provider, session.threads) == ("CPUExecutionProvider", 1)
    assert session.load_ms > 0
    assert session.inputs["past_key_values.0.key"].shape == ("batch", 3, "past", "head_size")
    assert session.inputs["input_ids"].dtype == np.int64


def test_a_provider_that_the_wheel_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"offers only CPUExecutionProvider .*onnxruntime") as e:
        open_session(tmp_path / "model.onnx", Execution("cuda"))
    assert e.value.exit_code == 5


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "bundle", encoder_model())
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    with pytest.raises(ProviderError, match="fell back to CPUExecutionProvider"):
        open_session(bundle.model_path, Execution("cuda"))


def test_unknown_providers_and_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="cpu, cuda"):
        open_session(path, Execution("tpu"))
    with pytest.raises(InputError, match="does not exist"):
        open_session(path)
    path.write_bytes(b"no graph")
    with pytest.raises(InputError, match="cannot load"):
        open_session(path)


def test_missing_external_data_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(encoder_model(), path, save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    with pytest.raises(InputError, match=r"w\.data"):
        open_session(path)


def test_a_failing_run_names_the_shapes(decoder: DecoderRunner) -> None:
    ids = np.array([[1, VOCABULARY]])
    with pytest.raises(EdgelrError, match=r"input_ids \(1, 2\)"):
        decoder.logits(ids)


def test_the_arena_of_a_gpu_is_limited_to_what_is_asked_for() -> None:
    (name, options), (fallback, _) = session._providers("cuda", 300 * 2**20)
    assert (name, fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["gpu_mem_limit"] == "314572800"
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert session._providers("cuda", None)[0] == ("CUDAExecutionProvider", {})
    assert session._providers("cpu", 1) == [("CPUExecutionProvider", {})]


def test_an_arena_that_cannot_grow_is_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        said = "void* onnxruntime::BFCArena::AllocateRawInternal(size_t) Available memory of 9 is"
        raise session.state.Fail(said)

    bundle = write_bundle(tmp_path / "bundle", encoder_model())
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(EnvironmentProblem, match=r"too little memory for .*smaller --keep"):
        open_session(bundle.model_path)
