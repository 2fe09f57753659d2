"""Decoders: judged on chunks of text, timed as they read a prompt and decode behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from edgelr.core.bundle import (
    ExportBundle,
    read_config,
    read_generation_config,
    read_tokenizer,
)
from edgelr.core.errors import InputError
from edgelr.core.modality import DECODER
from edgelr.core.vocabulary import Array
from edgelr.data.generation import token_ids
from edgelr.data.padding import left_padded
from edgelr.data.text import chunk_tokens, read_text
from edgelr.runtime.graphs import open_graph, random_ids
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
from edgelr.runtime.runners import RUNNERS, ReferenceAnswer, Runner, runner_of
from edgelr.runtime.runners.decoder_graph import DecoderGraph, KeyValueCache

DECODED_TOKENS = 64  # in a run whose memory is limited


@RUNNERS.register(DECODER)
class DecoderRunner(DecoderGraph, Runner):
    """A decoder; see ``DecoderGraph`` for its arguments."""

    answer_names = ("prompts", "lengths", "greedy", "logits_0")
    output_name = "logits"

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> DecoderRunner:
        """Open the decoder of a bundle; it reads token ids, and needs no tokenizer.

        Raises:
            InputError: the bundle generates no text.
        """
        if not issubclass(runner_of(bundle), DecoderRunner):
            raise InputError(
                f"{bundle.folder} is for {bundle.manifest.task}. Expected a model that generates "
                f"text. Name the folder of one; 'edgelr validate' judges the others."
            )
        session = open_graph(bundle, execution)
        config, known = read_config(bundle), read_generation_config(bundle)
        ends = {*token_ids(config.get("eos_token_id")), *token_ids(known.get("eos_token_id"))}
        config["eos_token_id"] = sorted(ends)
        return cls(session, config, bundle.manifest.cache_in_place)

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List prefills, and decodes behind a context."""
        limit = bundle.manifest.context_tokens
        prefills, contexts = sizes.prefill_tokens, sizes.context_tokens
        if max(*prefills, *(count + 1 for count in contexts)) > limit:
            raise InputError(
                f"Asked to prefill {[*prefills]} and to decode at {[*contexts]} tokens. "
                f"Expected no more than the {limit:,} tokens of {bundle.folder}. Ask for fewer."
            )
        return [
            *(TimedPhase("prefill", 1, count) for count in prefills),
            *(TimedPhase("decode", 1, 1, count) for count in contexts),
        ]

    @classmethod
    def profiled_phase(cls, bundle: ExportBundle, tokens: int) -> TimedPhase:
        """Profile a prefill."""
        return TimedPhase("prefill", 1, min(tokens, bundle.manifest.context_tokens))

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Fill the context in pieces of a prefill, and decode."""
        longest = min(sizes.context_tokens, bundle.manifest.context_tokens)
        decode = TimedPhase("decode", sizes.batch, 1, longest - 1)
        tokens = min(sizes.prefill_tokens, longest)
        return CappedRuns((decode,) * DECODED_TOKENS, tokens, longest)

    def samples(self, evaluation: Evaluation) -> Array:
        """Cut a text into chunks of token ids, ``(chunks, length)``."""
        size, bundle = evaluation.size, evaluation.original
        length = min(size.length, bundle.manifest.context_tokens)
        text = read_text(evaluation.source)
        return chunk_tokens(text, read_tokenizer(bundle), size.chunks, length)

    def prompts(
        self, samples: Array, count: int, length: int, new_tokens: int
    ) -> tuple[list[Array], int]:
        """Cut prompts out of chunks, spread over all of them."""
        new_tokens = min(new_tokens, samples.shape[1] // 2)
        length = min(length, samples.shape[1] - new_tokens)
        tokens = samples.reshape(-1)  # chunks follow each other
        starts = np.linspace(0, len(tokens) - length, min(count, len(tokens) // length))
        return [tokens[start : start + length] for start in starts.astype(np.int64)], new_tokens

    def read_answers(self, answers: Mapping[str, Array]) -> list[ReferenceAnswer]:
        """Read prompts, the logits of all their tokens, and what is written behind them."""
        rows = zip(answers["prompts"], answers["lengths"], answers["greedy"], strict=True)
        return [
            ReferenceAnswer(row[:length], answers[f"logits_{index}"], tuple(greedy.tolist()))
            for index, (row, length, greedy) in enumerate(rows)
        ]

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run prompts padded on the left; return the logits of each without its padding."""
        logits, _ = self.logits(*left_padded(rows, int(self.config.get("pad_token_id") or 0)))
        return [each[-len(row) :] for each, row in zip(logits, rows, strict=True)]

    def generate(self, row: Array, new_tokens: int) -> list[int]:
        """Continue a prompt ``(length,)`` by its likeliest tokens."""
        return self.greedy([row.tolist()], new_tokens)[0]

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw tokens; fill the cache before a decode, the first time."""
        ids = random_ids(self.vocabulary, phase.batch, phase.tokens)
        past = self._filled(phase, inputs.piece_tokens) if phase.phase == "decode" else None
        return lambda: self.logits(ids, past=past)

    @cached_property
    def _contexts(self) -> dict[tuple[int, int], KeyValueCache]:
        """Caches before timed decodes, by batch and tokens."""
        return {}

    def _filled(self, phase: TimedPhase, piece_tokens: int) -> KeyValueCache:
        batch, tokens = key = (phase.batch, phase.context_tokens)
        if key not in self._contexts:
            past = self.empty_cache(batch, tokens + 1)
            for start in range(0, tokens, piece_tokens):
                ids = random_ids(self.vocabulary, batch, min(piece_tokens, tokens - start))
                past = self.logits(ids, past=past)[1]
            self._contexts[key] = past
        return self._contexts[key]
