"""One loaded graph that is timed run by run; decoding starts from caches that are kept."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgelr.core.bundle import read_bundle, read_config
from edgelr.core.inputs import ImageInput
from edgelr.core.vocabulary import Array, Phase
from edgelr.data.generation import Start
from edgelr.data.tensors import SAMPLES, feeds, load_samples
from edgelr.runtime.runners.decoder import Cache, Decoder
from edgelr.runtime.runners.dual_encoder import Matcher
from edgelr.runtime.runners.encoder import Encoder
from edgelr.runtime.runners.encoder_decoder import FEATURES, PairRunner, Past, Source
from edgelr.runtime.runners.image_encoder import ImageEncoder
from edgelr.runtime.runners.tensors import Tensors
from edgelr.runtime.session import open_session


class Bench:
    """The graph of one bundle, without its tokenizer: nothing else should take memory.

    Args:
        folder: of the bundle.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: of one operator; None takes every core.
        piece_tokens: of a context that are read at once.
        memory_bytes, profile: see ``open_session``.
        inputs: samples of a graph that reads no tokens; None takes those of the bundle.
    """

    def __init__(
        self,
        folder: Path,
        provider: str,
        threads: int | None,
        piece_tokens: int,
        memory_bytes: int | None = None,
        profile: Path | None = None,
        inputs: str | None = None,
    ) -> None:
        bundle = read_bundle(folder)
        self._image = bundle.manifest.image
        self._runner: Decoder | Encoder | ImageEncoder | Matcher | PairRunner | Tensors
        self.session = open_session(bundle.model_path, provider, threads, memory_bytes, profile)
        self._piece_tokens = piece_tokens
        self._pasts: dict[tuple[int, int], Cache] = {}
        self._target_pasts: dict[tuple[int, int], Past] = {}
        self._source: Source | None = None
        if bundle.manifest.task == "tensors":
            self._runner = Tensors(self.session)
            self._feeds = feeds(load_samples(Path(inputs or folder / SAMPLES)), 0)
            return
        config = read_config(bundle)
        self._vocabulary = int(config.get("vocab_size", 0))
        image, matching = bundle.manifest.image, bundle.manifest.matching
        if image is not None and matching is not None:
            assert bundle.encoder_path is not None
            texts = open_session(bundle.encoder_path, provider, threads, memory_bytes)
            self._runner = Matcher(texts, self.session, image, matching)
            self._vocabulary = matching.pad_token + 1  # config.json may leave the number out
            self.session.load_ms += texts.load_ms
        elif bundle.manifest.image is not None:
            self._runner = ImageEncoder(self.session, bundle.manifest.image)
        elif bundle.encoder_path is not None:
            options = (provider, threads, memory_bytes)
            encoder = open_session(bundle.encoder_path, *options)
            self._runner = PairRunner(encoder, self.session, Start((0,), ()))
            self.session.load_ms += encoder.load_ms
        elif bundle.manifest.task == "text-generation":
            self._runner = Decoder(self.session, config, bundle.manifest.cache_in_place)
        else:
            self._runner = Encoder(self.session)

    def run_ms(self, phase: Phase, batch: int, tokens: int, context_tokens: int) -> float:
        """Run a phase once, on random tokens or pixels; a bundle of tensors, on what it holds.

        Args:
            phase: ``"prefill"``, ``"decode"`` or, for an encoder, ``"forward"``. Beside an encoder,
                a decode goes on from what was read last. Of a model that compares images with
                texts, ``"forward"`` is for images and ``"text"`` for texts.
            batch: sequences.
            tokens: new tokens of each sequence.
            context_tokens: tokens in the cache before a decode; the first decode fills it.

        Returns:
            Milliseconds, from the tokens to the outputs on the host.
        """
        if isinstance(self._runner, Tensors):
            start = time.perf_counter()
            self._runner.outputs(self._feeds)
            return (time.perf_counter() - start) * 1e3
        if isinstance(self._runner, PairRunner):
            return self._run_pair_ms(self._runner, phase, batch, tokens, context_tokens)
        if not isinstance(self._runner, Decoder):
            image = None if phase == "text" else self._image
            given = self._random_input(image, batch, tokens)
            start = time.perf_counter()
            self._runner.run(given)
            return (time.perf_counter() - start) * 1e3
        ids = self._random_ids(batch, tokens)
        past = self._past(self._runner, batch, context_tokens) if phase == "decode" else None
        start = time.perf_counter()
        self._runner.logits(ids, past=past)
        return (time.perf_counter() - start) * 1e3

    def _run_pair_ms(
        self, runner: PairRunner, phase: Phase, batch: int, tokens: int, context_tokens: int
    ) -> float:
        """Time the encoder, or the decoder on what the encoder has read last."""
        if phase == "forward":
            given = self._random_source(runner, batch, tokens)
            start = time.perf_counter()
            self._source = runner.read(given)
            return (time.perf_counter() - start) * 1e3
        if self._source is None:
            self._source = runner.read(self._random_source(runner, batch, self._piece_tokens))
        source, key = self._source, (batch, context_tokens)
        if key not in self._target_pasts:
            past = runner.empty_past(batch, 0)
            for done in range(0, context_tokens, self._piece_tokens):
                count = min(self._piece_tokens, context_tokens - done)
                past = runner.logits(self._random_ids(batch, count), source, past)[1]
            self._target_pasts[key] = past
        ids = self._random_ids(batch, tokens)
        start = time.perf_counter()
        runner.logits(ids, source, self._target_pasts[key])
        return (time.perf_counter() - start) * 1e3

    def _past(self, decoder: Decoder, batch: int, context_tokens: int) -> Cache:
        key = (batch, context_tokens)
        if key not in self._pasts:
            past = decoder.empty_cache(batch, context_tokens + 1)
            for start in range(0, context_tokens, self._piece_tokens):
                tokens = min(self._piece_tokens, context_tokens - start)
                past = decoder.logits(self._random_ids(batch, tokens), past=past)[1]
            self._pasts[key] = past
        return self._pasts[key]

    def _random_input(self, image: ImageInput | None, batch: int, tokens: int) -> Array:
        if image is None:
            return self._random_ids(batch, tokens)
        shape = (batch, 3, image.side, image.side)
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def _random_source(self, runner: PairRunner, batch: int, tokens: int) -> Array:
        """Token ids ``(batch, tokens)``, or sounds, which have one length."""
        if not runner.hears:
            return self._random_ids(batch, tokens)
        _, *sizes = runner.encoder.inputs[FEATURES].shape
        shape = (batch, *(size for size in sizes if isinstance(size, int)))
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def _random_ids(self, batch: int, tokens: int) -> Array:
        return np.random.default_rng(0).integers(self._vocabulary, size=(batch, tokens))
