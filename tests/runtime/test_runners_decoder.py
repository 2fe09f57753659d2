"""Decoders: one graph, its cache, and what goes on from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgelr.core.errors import InputError
from edgelr.data.padding import left_padded
from edgelr.runtime.requests import Execution, PhaseSizes
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.runners.decoder_graph import DecoderGraph
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from tests.helpers.runtime_graphs import (
    decoder_logits,
    decoder_model,
    encoder_model,
    write_bundle,
)


@pytest.fixture
def decoder(tmp_path: Path) -> DecoderRunner:
    bundle = write_bundle(tmp_path / "decoder", decoder_model())
    return DecoderRunner.open(bundle, Execution(threads=1))


@pytest.mark.cuda
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="no CUDA provider"
)
def test_a_cache_stays_on_the_gpu(tmp_path: Path) -> None:
    decoder = DecoderRunner.open(
        write_bundle(tmp_path / "bundle", decoder_model()), Execution("cuda")
    )
    _, cache = decoder.logits(np.array([[1, 2]]))
    assert {value.device_name() for value in cache.values} == {"cuda"}
    found, _ = decoder.logits(np.array([[3]]), past=cache)
    np.testing.assert_allclose(found[0], decoder_logits([1, 2, 3])[2:], atol=1e-3)


def test_steps_with_a_cache_equal_one_pass(decoder: DecoderRunner) -> None:
    first, cache = decoder.logits(np.array([[1, 2, 3]]))
    second, cache = decoder.logits(np.array([[4, 5]]), past=cache)
    assert cache.tokens == 5
    found = np.concatenate([first[0], second[0]])
    np.testing.assert_allclose(found, decoder_logits([1, 2, 3, 4, 5]), atol=1e-5)


def test_left_padding_changes_no_real_position(decoder: DecoderRunner) -> None:
    prompts = [[1, 2, 3, 4], [5, 6]]
    ids, mask = left_padded(prompts, pad_id=9)
    assert ids.tolist() == [[1, 2, 3, 4], [9, 9, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    found, _ = decoder.logits(ids, mask)
    np.testing.assert_allclose(found[1, 2:], decoder_logits([5, 6]), atol=1e-5)


def test_greedy_tokens_are_the_most_likely_ones(decoder: DecoderRunner) -> None:
    prompts = [[1, 2, 3], [4]]
    for prompt, found in zip(prompts, decoder.greedy(prompts, 5), strict=True):
        tokens = list(prompt)
        for _ in range(5):
            tokens.append(int(decoder_logits(tokens)[-1].argmax()))
        assert found == tokens[len(prompt) :]


def test_equal_logits_choose_the_lowest_token(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "uniform", decoder_model(uniform=True))
    assert DecoderRunner.open(bundle).greedy([[7]], 2) == [[0, 0]]


def test_a_text_is_predicted_alike_at_once_and_by_steps(tmp_path: Path) -> None:
    decoder = DecoderRunner.open(write_bundle(tmp_path / "bundle", decoder_model()))
    prompts = [np.array([4, 1, 7]), np.array([9, 3, 2])]
    found = decoder.continued(prompts, 6)
    assert found.tolist() == decoder.greedy([prompt.tolist() for prompt in prompts], 6)
    for prompt, text in zip(prompts, found, strict=True):
        whole = decoder_logits([*prompt.tolist(), *text.tolist()])[2:-1]
        np.testing.assert_allclose(decoder.predicted(prompt, text), whole, atol=1e-5)
        np.testing.assert_allclose(decoder.predicted(prompt, text, True), whole, atol=1e-5)
    assert decoder.ends == (2,)


def test_a_text_ends_with_every_token_that_either_configuration_names(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", decoder_model())
    (bundle.folder / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    assert DecoderRunner.open(bundle).ends == (2, 5, 7)


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    encoder = TextEncoderRunner.open(write_bundle(tmp_path / "encoder", encoder_model()))
    with pytest.raises(InputError, match=r"unknown inputs \['token_type_ids'\].*logits"):
        DecoderGraph(encoder.session, {})


def test_a_bundle_of_another_task_is_refused_by_its_name(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "encoder", encoder_model())
    with pytest.raises(InputError, match="is for feature-extraction"):
        DecoderRunner.open(bundle)


@pytest.mark.parametrize("sizes", [PhaseSizes((65,), (8,)), PhaseSizes((8,), (64,))])
def test_phases_longer_than_the_context_are_refused(tmp_path: Path, sizes: PhaseSizes) -> None:
    bundle = write_bundle(tmp_path / "decoder", decoder_model())
    with pytest.raises(InputError, match="64 tokens"):
        DecoderRunner.phases(bundle, sizes)
    assert DecoderRunner.phases(bundle, PhaseSizes((64,), (63,)))


def test_tokens_that_do_not_fit_a_cache_are_refused(decoder: DecoderRunner) -> None:
    in_place = DecoderGraph(decoder.session, decoder.config, in_place=True)
    with pytest.raises(InputError, match="room for 2 tokens, and 3 were given"):
        in_place.logits(np.array([[1, 2, 3]]), past=in_place.empty_cache(1, 2))


def test_prompts_are_spread_over_the_chunks(decoder: DecoderRunner) -> None:
    chunks = np.random.default_rng(1).integers(11, size=(3, 70))
    prompts, new_tokens = decoder.prompts(chunks, 16, 16, 32)
    assert (len(prompts), {len(prompt) for prompt in prompts}) == (13, {16})  # 210 tokens
    assert new_tokens == 32
    assert prompts[0].tolist() == chunks[0, :16].tolist()
    assert prompts[-1].tolist() == chunks[-1, -16:].tolist()
    short, few = decoder.prompts(chunks[:, :9], 16, 16, 32)
    assert (len(short), len(short[0]), few) == (5, 5, 4)
