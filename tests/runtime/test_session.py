from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import save

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError, ProviderError
from edgelr.data.padding import left_padded, right_padded
from edgelr.runtime import calls as jobs
from edgelr.runtime import session
from edgelr.runtime.runners.decoder import Decoder
from edgelr.runtime.runners.encoder import Encoder
from edgelr.runtime.session import open_session
from tests.helpers.runtime_graphs import (
    FEATURES,
    VOCABULARY,
    decoder_logits,
    decoder_model,
    embedding_table,
    encoder_model,
    write_bundle,
)


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    return Decoder.open(write_bundle(tmp_path / "decoder", decoder_model()), threads=1)


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder.open(write_bundle(tmp_path / "encoder", encoder_model()), threads=1)


def test_a_session_tells_what_really_runs(decoder: Decoder) -> None:
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
        open_session(tmp_path / "model.onnx", "cuda")
    assert e.value.exit_code == 5


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "bundle", encoder_model())
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    with pytest.raises(ProviderError, match="fell back to CPUExecutionProvider"):
        open_session(bundle.model_path, "cuda")


@pytest.mark.cuda
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="no CUDA provider"
)
def test_a_cache_stays_on_the_gpu(tmp_path: Path) -> None:
    decoder = Decoder.open(write_bundle(tmp_path / "bundle", decoder_model()), "cuda")
    _, cache = decoder.logits(np.array([[1, 2]]))
    assert {value.device_name() for value in cache.values} == {"cuda"}
    found, _ = decoder.logits(np.array([[3]]), past=cache)
    np.testing.assert_allclose(found[0], decoder_logits([1, 2, 3])[2:], atol=1e-3)


def test_unknown_providers_and_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="cpu, cuda"):
        open_session(path, "tpu")
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


def test_a_failing_run_names_the_shapes(decoder: Decoder) -> None:
    ids = np.array([[1, VOCABULARY]])
    with pytest.raises(EdgelrError, match=r"input_ids \(1, 2\)"):
        decoder.logits(ids)


def test_steps_with_a_cache_equal_one_pass(decoder: Decoder) -> None:
    first, cache = decoder.logits(np.array([[1, 2, 3]]))
    second, cache = decoder.logits(np.array([[4, 5]]), past=cache)
    assert cache.tokens == 5
    found = np.concatenate([first[0], second[0]])
    np.testing.assert_allclose(found, decoder_logits([1, 2, 3, 4, 5]), atol=1e-5)


def test_left_padding_changes_no_real_position(decoder: Decoder) -> None:
    prompts = [[1, 2, 3, 4], [5, 6]]
    ids, mask = left_padded(prompts, pad_id=9)
    assert ids.tolist() == [[1, 2, 3, 4], [9, 9, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    found, _ = decoder.logits(ids, mask)
    np.testing.assert_allclose(found[1, 2:], decoder_logits([5, 6]), atol=1e-5)


def test_greedy_tokens_are_the_most_likely_ones(decoder: Decoder) -> None:
    prompts = [[1, 2, 3], [4]]
    for prompt, found in zip(prompts, decoder.greedy(prompts, 5), strict=True):
        tokens = list(prompt)
        for _ in range(5):
            tokens.append(int(decoder_logits(tokens)[-1].argmax()))
        assert found == tokens[len(prompt) :]


def test_equal_logits_choose_the_lowest_token(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "uniform", decoder_model(uniform=True))
    assert Decoder.open(bundle).greedy([[7]], 2) == [[0, 0]]


def test_a_runner_refuses_the_other_kind_of_graph(decoder: Decoder, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"unknown inputs \['token_type_ids'\].*logits"):
        Decoder(encoder.session, {})
    with pytest.raises(InputError, match="past_key_values"):
        Encoder(decoder.session)


def test_embeddings_are_unit_means_of_the_real_tokens(encoder: Encoder) -> None:
    found = encoder.embed(["red green", "sea", "sun moon blue"], batch=2)
    table = embedding_table()
    expected = np.stack([table[[1, 2]].mean(0), table[7], table[[9, 10, 3]].mean(0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (found.shape, found.dtype) == ((3, FEATURES), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cls_pooling_and_truncation(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", encoder_model(), pooling="cls", context_tokens=2)
    encoder = Encoder.open(bundle)
    first = embedding_table()[1]
    np.testing.assert_allclose(encoder.embed(["red sea"])[0], first / np.linalg.norm(first), 1e-6)
    mean = Encoder(encoder.session, encoder.tokenizer, "mean", max_tokens=2)
    np.testing.assert_array_equal(mean.embed(["red sea sky sun"]), mean.embed(["red sea"]))


def test_right_padding_masks_what_is_no_token() -> None:
    ids, mask = right_padded([[3], [4, 5]])
    assert ids.tolist() == [[3, 0], [4, 5]]
    assert mask.tolist() == [[1, 0], [1, 1]]


def test_a_profile_tells_where_every_operator_ran(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", decoder_model())
    found = {each.operator: each for each in jobs.operators(bundle, 5, threads=1, runs=3)}
    assert found["MatMul"].nodes == 1
    assert {each.provider for each in found.values()} == {"CPUExecutionProvider"}
    assert all(each.milliseconds >= 0 for each in found.values())
    assert list(tmp_path.glob("**/nodes*")) == []


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


def test_a_text_is_predicted_alike_at_once_and_by_steps(tmp_path: Path) -> None:
    decoder = Decoder.open(write_bundle(tmp_path / "bundle", decoder_model()))
    prompts = [np.array([4, 1, 7]), np.array([9, 3, 2])]
    found = decoder.continued(prompts, 6)
    assert found.tolist() == decoder.greedy([prompt.tolist() for prompt in prompts], 6)
    for prompt, text in zip(prompts, found, strict=True):
        whole = decoder_logits([*prompt.tolist(), *text.tolist()])[2:-1]
        np.testing.assert_allclose(decoder.predicted(prompt, text), whole, atol=1e-5)
        np.testing.assert_allclose(decoder.predicted(prompt, text, True), whole, atol=1e-5)
    assert decoder.ends == (2,)
