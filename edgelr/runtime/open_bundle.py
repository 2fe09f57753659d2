"""A bundle that answers, in ONNX Runtime alone: what an app does with it, in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgelr.core.bundle import Manifest, read_bundle, read_config, read_tokenizer
from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array
from edgelr.data.audio import read_sounds
from edgelr.data.generation import until_end
from edgelr.data.pairs import activation_of
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners import runner_of

ONE_LABEL = ("text-classification", "image-classification")


class Bundle:
    """A finished folder, opened in ONNX Runtime. No torch is imported.

    The graph is loaded when the first question is asked. What a bundle cannot answer is refused,
    with the names of what it can.

    Args:
        folder: folder that ``export`` wrote.
        provider: execution provider, ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core.

    Raises:
        InputError: it is no bundle, or its files are damaged.
    """

    def __init__(
        self, folder: str | Path, provider: str = "cpu", threads: int | None = None
    ) -> None:
        self._bundle = read_bundle(Path(folder))
        self._execution = Execution(provider, threads)

    @property
    def manifest(self) -> Manifest:
        """Task, modality, precision and files of the bundle."""
        return self._bundle.manifest

    @cached_property
    def _runner(self) -> Any:
        return runner_of(self._bundle).open(self._bundle, self._execution)

    def generate(self, text: str, max_tokens: int = 64) -> str:
        """Continue a text, or answer it, by the likeliest tokens.

        Args:
            text: prompt of a decoder, or source of an encoder-decoder model.
            max_tokens: maximum answer length, tokens.
        """
        self._require("generate", ("text-generation", "text2text-generation"))
        tokenizer = read_tokenizer(self._bundle)
        ids = np.array(tokenizer.encode(text).ids, np.int64)
        (tokens,) = self._runner.continued([ids], max_tokens)
        return str(tokenizer.decode(until_end(tokens.tolist(), self._runner.ends)))

    def embed(self, samples: Sequence[str | Path]) -> Array:
        """Embed texts, or image files of a model that reads images.

        Returns:
            One unit vector for each, ``(samples, features)`` float32.
        """
        self._require("embed", ("feature-extraction", "zero-shot-image-classification"))
        found: Array = self._runner.embed(self._inputs(samples))
        return found

    def classify(self, samples: Sequence[str | Path]) -> list[str]:
        """Name the likeliest label of each text or image file."""
        self._require("classify", ONE_LABEL)
        names = read_config(self._bundle)["id2label"]
        best = self._runner.decide(self._inputs(samples)).argmax(-1)
        return [str(names[str(label)]) for label in best.tolist()]

    def rank(self, query: str, passages: Sequence[str]) -> list[tuple[float, str]]:
        """Sort passages by how well they fit a query.

        Scores are those of a CrossEncoder of sentence-transformers: its activation function is
        applied, see ``data.pairs.activation_of``.

        Returns:
            Score and passage, the best first.
        """
        self._require("rank", ("text-ranking",))
        raw = self._runner.score([(query, passage) for passage in passages]).astype(np.float64)
        plain = activation_of(self._bundle.folder) == "identity"
        scores = raw if plain else 1 / (1 + np.exp(-raw))
        return [
            (float(scores[place]), passages[place]) for place in np.argsort(-raw, kind="stable")
        ]

    def match(self, images: Sequence[str | Path], texts: Sequence[str]) -> Array:
        """Compare image files with texts.

        Returns:
            Logits ``(images, texts)`` float32.
        """
        self._require("match", ("zero-shot-image-classification",))
        seen = self._runner.embed([Path(each) for each in images])
        found: Array = self._runner.logits(seen, self._runner.embed_texts(list(texts)))
        return found

    def transcribe(self, sounds: Sequence[str | Path]) -> list[str]:
        """Write down what is said in sound files."""
        self._require("transcribe", ("automatic-speech-recognition",))
        assert self.manifest.sound is not None
        features = read_sounds([Path(each) for each in sounds], self.manifest.sound)
        texts: list[str] = self._runner.answers(list(features))
        return texts

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Run a graph that came from anywhere on arrays; return its outputs by name."""
        self._require("run", ("tensors",))
        outputs: dict[str, Array] = self._runner.outputs(inputs)
        return outputs

    def _inputs(self, samples: Sequence[str | Path]) -> list[Any]:
        reads_images = self.manifest.image is not None
        return [Path(each) if reads_images else str(each) for each in samples]

    def _require(self, method: str, tasks: tuple[str, ...]) -> None:
        if self.manifest.task not in tasks:
            raise InputError(
                f"{self._bundle.folder} is for {self.manifest.task}, and {method} takes bundles "
                f"for {' or '.join(tasks)}. Call the method that fits its task: docs/python.md has "
                f"them all."
            )
