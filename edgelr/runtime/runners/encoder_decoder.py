"""Encoder-decoders: judged on answers that are drawn from the original, timed part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config, read_generation_config, read_tokenizer
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.generation import read_start
from edgelr.data.labels import read_records, require_scores
from edgelr.data.text import read_text, split_sentences
from edgelr.runtime.evaluators import Known
from edgelr.runtime.graphs import open_graphs, random_ids
from edgelr.runtime.requests import (
    ON_CPU,
    CappedRuns,
    DeviceSizes,
    Evaluation,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)
from edgelr.runtime.runners import RUNNERS, ReferenceAnswer, Runner, numbered
from edgelr.runtime.runners.decoder import DECODED_TOKENS
from edgelr.runtime.runners.encoder_decoder_graphs import (
    EncodedSource,
    EncoderDecoderGraphs,
    TargetPast,
)
from edgelr.runtime.runners.forward import FORWARD_TOKENS

_ANSWER_TOKENS = 224  # at most, in words: half a minute of speech has some hundred
_TARGET_TOKENS = 64  # of a drawn answer, at most
_SEED = 0  # of the answers that are judged on: every bundle of a model is judged on the same

Targets = list[tuple[Array, Array]]
"""Sources as the encoder reads them, and the token ids of their answers, from the start token."""


@RUNNERS.register("encoder_decoder")
class EncoderDecoderRunner(EncoderDecoderGraphs, Runner):
    """An encoder and its decoder; see ``EncoderDecoderGraphs`` for its arguments."""

    answer_names = ("source_0", "target_0", "output_0")
    _source: EncodedSource | None = None  # that a timed run of the encoder has read last

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> EncoderDecoderRunner:
        """Open both graphs of a bundle."""
        decoder, encoder = open_graphs(bundle, execution)
        config = read_config(bundle)
        start = read_start(config, read_generation_config(bundle))
        longest = min(_ANSWER_TOKENS, bundle.manifest.context_tokens - start.length)
        words = read_tokenizer(bundle) if tokenizer else None
        vocabulary = int(config.get("vocab_size", 0))
        return cls(encoder, decoder, start, words, longest, vocabulary)

    @classmethod
    def source_tokens(cls, bundle: ExportBundle, asked: int) -> int:
        """Tokens that the encoder reads of a source: as many as are asked for and fit."""
        return min(asked, bundle.manifest.context_tokens)

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List a run of the encoder, the first step of the decoder, and steps behind a target."""
        last = bundle.manifest.context_tokens - 1
        steps = [0, *(min(count, last) for count in sizes.context_tokens)]
        decodes = [TimedPhase("decode", 1, 1, count) for count in dict.fromkeys(steps)]
        return [TimedPhase("forward", 1, cls.source_tokens(bundle, FORWARD_TOKENS)), *decodes]

    @classmethod
    def profiled_phase(cls, bundle: ExportBundle, tokens: int) -> TimedPhase:
        """Profile the first step of the decoder."""
        return TimedPhase("decode", 1, 1)

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Read the longest source, fill the target, and decode."""
        longest = min(sizes.context_tokens, bundle.manifest.context_tokens)
        tokens = cls.source_tokens(bundle, longest)
        decode = TimedPhase("decode", sizes.batch, 1, longest - 1)
        phases = (TimedPhase("forward", sizes.batch, tokens), *(decode,) * DECODED_TOKENS)
        return CappedRuns(phases, tokens, longest)

    def samples(self, evaluation: Evaluation) -> Targets | Known:
        """Read texts, and draw an answer to each; with true ones where these are told."""
        bundle, count = evaluation.original, evaluation.size.pairs
        records = read_records(evaluation.source, bundle.manifest.task)
        if records is None:
            sentences = split_sentences(read_text(evaluation.source), count)
            return self.draw_answers(bundle, sentences, evaluation.progress)
        require_scores()
        texts = [record.given for record in records[:count]]
        drawn = self.draw_answers(bundle, texts, evaluation.progress)
        return Known(drawn, [record.truth for record in records[:count]])

    def prompts(
        self, samples: Targets, count: int, length: int, new_tokens: int
    ) -> tuple[list[Array], int]:
        """Take the first sources, whole; their targets are not looked at."""
        return [source for source, _ in samples[:count]], new_tokens

    def draw_answers(
        self, bundle: ExportBundle, sentences: list[str], progress: Progress | None = None
    ) -> Targets:
        """Draw an answer to each sentence."""
        tokenizer = read_tokenizer(bundle)
        tokenizer.no_padding()
        tokenizer.enable_truncation(bundle.manifest.context_tokens)
        sources = [np.array(each.ids, np.int64) for each in tokenizer.encode_batch(sentences)]
        return self.draw_targets(bundle, sources, progress)

    def draw_targets(
        self, bundle: ExportBundle, sources: Sequence[Array], progress: Progress | None = None
    ) -> Targets:
        """Draw an answer to each source."""
        generator = np.random.default_rng(_SEED)
        room = min(_TARGET_TOKENS, bundle.manifest.context_tokens - self.start.length)
        targets: Targets = []
        for start in range(0, len(sources), self.batch):
            batch = sources[start : start + self.batch]
            found = self.drawn(batch, room, generator)
            targets += zip(batch, (np.array(each, np.int64) for each in found), strict=True)
            if progress:
                progress("answer", len(targets), len(sources))
        return targets

    def read_answers(self, answers: Mapping[str, Array]) -> list[ReferenceAnswer]:
        """Read sources with their greedy targets, and the logits of all targets but the first."""
        names = ("source", "target", "output")
        rows = zip(*(numbered(answers, name) for name in names), strict=True)
        first = self.start.length
        return [
            ReferenceAnswer((source, target), output, tuple(target[first:].tolist()))
            for source, target, output in rows
        ]

    def run_together(self, rows: Sequence[tuple[Array, Array]]) -> list[Array]:
        """Predict targets of one length from padded sources."""
        sources, mask = self.together([source for source, _ in rows])
        return list(self.forced(sources, np.stack([target for _, target in rows]), mask))

    def generate(self, row: tuple[Array, Array], new_tokens: int) -> list[int]:
        """Answer a source by its likeliest tokens."""
        return self.greedy([row[0]], new_tokens)[0]

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw a source for the encoder; or tokens, that follow from the source read last."""
        if phase.phase == "forward":
            given = self.random_source(phase.batch, phase.tokens)
            return lambda: self._read(given)
        source = self._source
        if source is None:
            source = self._read(self.random_source(phase.batch, inputs.piece_tokens))
        past = self._filled(phase, inputs.piece_tokens, source)
        ids = random_ids(self.vocabulary, phase.batch, phase.tokens)
        return lambda: self.logits(ids, source, past)

    def random_source(self, rows: int, tokens: int) -> Array:
        """Draw sources of so many tokens."""
        return random_ids(self.vocabulary, rows, tokens)

    def _read(self, source: Array) -> EncodedSource:
        self._source = self.read(source)
        return self._source

    @cached_property
    def _contexts(self) -> dict[tuple[int, int], TargetPast]:
        """Pasts before timed decodes, by batch and tokens."""
        return {}

    def _filled(self, phase: TimedPhase, piece_tokens: int, source: EncodedSource) -> TargetPast:
        batch, tokens = key = (phase.batch, phase.context_tokens)
        if key not in self._contexts:
            past = self.empty_past(batch, 0)
            for done in range(0, tokens, piece_tokens):
                ids = random_ids(self.vocabulary, batch, min(piece_tokens, tokens - done))
                past = self.logits(ids, source, past)[1]
            self._contexts[key] = past
        return self._contexts[key]
