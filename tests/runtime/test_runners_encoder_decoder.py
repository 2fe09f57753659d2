"""Encoder-decoders of texts and of sounds: answers in every way are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.data.generation import Start
from edgelr.runtime.runners.encoder_decoder import EncoderDecoderRunner
from edgelr.runtime.runners.encoder_decoder_graphs import EncoderDecoderGraphs
from edgelr.runtime.runners.speech import SpeechRunner
from tests.helpers.runtime_bundles import reference_answers, write_modality
from tests.helpers.runtime_graphs import WORDS, embedding_table
from tests.helpers.runtime_sequences import SOUND, speech_weight, target_logits

SOURCES = [np.array([4, 1, 7]), np.array([9, 3])]


@pytest.fixture
def bundle(tmp_path: Path) -> ExportBundle:
    return write_modality(tmp_path / "bundle", "encoder_decoder")


@pytest.fixture
def runner(bundle: ExportBundle) -> EncoderDecoderRunner:
    return EncoderDecoderRunner.open(bundle)


def test_steps_with_a_past_give_the_logits_of_the_whole(runner: EncoderDecoderRunner) -> None:
    target, source = np.array([[1, 5, 6, 8]]), runner.read(SOURCES[0][None])
    first, past = runner.logits(target[:, :3], source)
    second, _ = runner.logits(target[:, 3:], source, past)
    expected = target_logits(embedding_table()[SOURCES[0]], target[0].tolist())
    np.testing.assert_allclose(np.concatenate([first[0], second[0]]), expected, atol=1e-5)


def test_padding_of_a_source_is_not_read(runner: EncoderDecoderRunner) -> None:
    sources, mask = runner.together(SOURCES)
    assert (sources.shape, mask.tolist() if mask is not None else None) == (
        (2, 3),
        [[1, 1, 1], [1, 1, 0]],
    )
    target = np.array([[1, 5, 6], [1, 5, 6]])
    alone = runner.forced(SOURCES[1][None], target[1:])
    np.testing.assert_allclose(runner.forced(sources, target, mask)[1:], alone, atol=1e-5)
    assert np.abs(runner.forced(sources, target)[1:] - alone).max() > 0.01


def test_answers_together_are_those_of_each_alone(runner: EncoderDecoderRunner) -> None:
    found = runner.continued(SOURCES, 6)
    assert found.tolist() == runner.greedy(SOURCES, 6)
    for source, tokens in zip(SOURCES, found, strict=True):
        at_once, by_steps = (runner.predicted(source, tokens, steps) for steps in (False, True))
        np.testing.assert_allclose(at_once, by_steps, atol=1e-5)
        assert at_once.argmax(-1).tolist() == tokens.tolist()


def test_answers_in_words_stop_at_the_end(runner: EncoderDecoderRunner) -> None:
    ended = EncoderDecoderRunner(
        runner.encoder, runner.session, Start((1,), (3,)), runner.tokenizer, max_tokens=9
    )
    for source, answer in zip(SOURCES, ended.answers(SOURCES), strict=True):
        (tokens,) = ended.greedy([source], 9)
        assert answer.split() == [WORDS[token] for token in ended.start.until_end(tokens)]


def test_drawn_targets_are_the_same_in_every_run(
    runner: EncoderDecoderRunner, bundle: ExportBundle
) -> None:
    calls: list[tuple[str, int, int]] = []
    sentences = ["red green", "sea sky sun", "moon"]
    first = runner.draw_answers(bundle, sentences, lambda *call: calls.append(call))
    again = runner.draw_answers(bundle, sentences)
    for (source, target), (_, other), words in zip(first, again, sentences, strict=True):
        assert [WORDS[token] for token in source] == words.split()
        np.testing.assert_array_equal(target, other)
        assert target[0] == 1
        assert 2 <= len(target) <= 65
    assert calls == [("answer", 3, 3)]


def test_prompts_are_the_first_sources(runner: EncoderDecoderRunner) -> None:
    targets = [(source, source[:1]) for source in SOURCES * 9]
    prompts, new_tokens = runner.prompts(targets, 16, 2, 32)
    assert (len(prompts), new_tokens) == (16, 32)
    np.testing.assert_array_equal(prompts[0], SOURCES[0])


def test_graphs_that_do_not_fit_each_other_are_refused(runner: EncoderDecoderRunner) -> None:
    with pytest.raises(InputError, match=r"no encoder-decoder .*present\.0\.encoder\.key"):
        EncoderDecoderGraphs(runner.session, runner.session, runner.start)


def test_a_decode_is_timed_behind_what_was_read_last(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "speech", "speech")
    runner = SpeechRunner.open(bundle, tokenizer=False)
    from edgelr.runtime.requests import TimedInputs, TimedPhase

    decode, inputs = TimedPhase("decode", 1, 1, 12), TimedInputs(piece_tokens=5)
    logits, _ = runner.prepare(decode, inputs)()  # type: ignore[misc]
    assert logits.shape[:2] == (1, 1)
    runner.prepare(TimedPhase("forward", 2, SOUND.tokens), inputs)()
    wider, _ = runner.prepare(TimedPhase("decode", 2, 1, 0), inputs)()  # type: ignore[misc]
    assert wider.shape[:2] == (2, 1)


def test_sounds_need_no_mask_and_have_tokens_of_their_own(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "speech", "speech")
    runner = SpeechRunner.open(bundle)
    rows = [each.row for each in runner.read_answers(reference_answers("speech"))]
    sounds, mask = runner.together([sound for sound, _ in rows])
    assert (sounds.shape, mask) == ((5, SOUND.mel_bins, SOUND.frames), None)
    expected = target_logits(rows[0][0].T @ speech_weight(), rows[0][1][:-1].tolist())
    np.testing.assert_allclose(runner.run_alone(rows[0]), expected, atol=1e-4)
    assert SpeechRunner.source_tokens(bundle, 3) == SOUND.tokens
    assert runner.random_source(2, 3).shape == (2, SOUND.mel_bins, SOUND.frames)
