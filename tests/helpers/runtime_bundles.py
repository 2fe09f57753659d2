"""Tiny bundles of every modality, their reference answers in numpy, and what they are judged on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgelr.core.bundle import ExportBundle
from edgelr.data.tensors import SAMPLES, write_samples
from tests.helpers.audio import write_sounds
from tests.helpers.runtime_graphs import (
    IMAGE,
    MATCHING,
    WORDS,
    decoder_logits,
    decoder_model,
    embedding_table,
    encoder_model,
    image_model,
    image_weight,
    pair_model,
    tensors_model,
    text_model,
    write_bundle,
)
from tests.helpers.runtime_sequences import (
    SOUND,
    encoder_decoder_models,
    speech_models,
    speech_weight,
    target_logits,
)

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [3, 3], [10, 1, 4]]


def write_modality(folder: Path, modality: str, seed: int = 0) -> ExportBundle:
    """Write a bundle of a modality."""
    if modality == "decoder":
        return write_bundle(folder, decoder_model(seed))
    if modality == "text_encoder":
        return write_bundle(folder, encoder_model(seed))
    changes: dict[str, Any] = {"modality": modality, "pooling": None}
    if modality == "text_pair":
        return write_bundle(folder, pair_model(seed), task="text-ranking", **changes)
    if modality == "image_encoder":
        changes |= {"task": "image-classification", "image": IMAGE, "context_tokens": IMAGE.tokens}
        return write_bundle(folder, image_model(seed), **changes)
    if modality == "dual_encoder":
        changes |= {"task": "zero-shot-image-classification", "matching": MATCHING}
        changes |= {"image": IMAGE, "context_tokens": IMAGE.tokens}
        return write_bundle(folder, image_model(seed, "image_embeds"), text_model(seed), **changes)
    if modality == "tensors":
        changes |= {"task": "tensors", "context_tokens": 0}
        bundle = write_bundle(folder, tensors_model(seed), **changes)
        write_samples(folder / SAMPLES, tensor_samples())
        return bundle
    if modality == "encoder_decoder":
        encoder, decoder = encoder_decoder_models(seed)
        return write_bundle(folder, decoder, encoder, task="text2text-generation", **changes)
    assert modality == "speech"
    encoder, decoder = speech_models(seed)
    changes |= {"task": "automatic-speech-recognition", "sound": SOUND}
    return write_bundle(folder, decoder, encoder, **changes)


def tensor_samples(count: int = 5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(4)
    return {"x": generator.standard_normal((count, 1, 3)).astype(np.float32)}


def greedy(logits: Callable[[list[int]], np.ndarray], begun: list[int], count: int) -> list[int]:
    """Continue tokens by the likeliest ones, of logits that a function gives."""
    tokens = list(begun)
    for _ in range(count):
        tokens.append(int(logits(tokens)[-1].argmax()))
    return tokens[len(begun) :]


def reference_answers(modality: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Compute what a bundle of ``write_modality`` should answer; see ``validate.parity``."""
    if modality == "decoder":
        longest = max(map(len, PROMPTS))
        rows = [greedy(lambda ids: decoder_logits(ids, seed), row, 6) for row in PROMPTS]
        return {
            "prompts": np.array([row + [0] * (longest - len(row)) for row in PROMPTS]),
            "lengths": np.array([*map(len, PROMPTS)]),
            "greedy": np.array(rows),
            **{f"logits_{i}": decoder_logits(row, seed) for i, row in enumerate(PROMPTS)},
        }
    generator, table = np.random.default_rng(9), embedding_table(seed)
    pixels = generator.standard_normal((5, 3, IMAGE.side, IMAGE.side)).astype(np.float32)
    colors = pixels.mean((2, 3)) @ image_weight(seed)
    ids = [np.array(row) for row in PROMPTS]
    if modality == "text_encoder":
        return _numbered(input_ids=ids, output=[table[row] for row in ids])
    if modality == "text_pair":
        pairs = [np.stack([row, np.arange(len(row)) >= len(row) // 2]) for row in ids]
        scores = [(table[row, 0] * (types + 1)).sum(keepdims=True) for row, types in pairs]
        return _numbered(input_ids=pairs, output=scores)
    if modality == "image_encoder":
        return _numbered(pixel_values=list(pixels), output=list(colors))
    if modality == "dual_encoder":
        texts = [table[row].sum(0) for row in ids]
        return _numbered(row=[*pixels[:2], *ids[:3]], output=[*colors[:2], *texts[:3]])
    if modality == "tensors":
        samples, arrays = tensor_samples(), {"runs": np.array(5)}
        for run, x in enumerate(samples["x"]):
            y = x @ image_weight(seed)
            with np.errstate(divide="ignore"):
                z = np.log(np.maximum(x, 0))
            arrays |= {f"input_{run}.x": x, f"output_{run}.y": y, f"output_{run}.z": z}
        return arrays
    sources, embedded = ids, [table[row] for row in ids]
    if modality == "speech":
        shape = (5, SOUND.mel_bins, SOUND.frames)
        sources = list(generator.standard_normal(shape).astype(np.float32))
        embedded = [source.T @ speech_weight(seed) for source in sources]
    targets = []
    for each in embedded:
        answer = functools.partial(target_logits, each, seed=seed)
        targets.append(np.array([1, *greedy(answer, [1], 6)]))
    pairs = zip(embedded, targets, strict=True)
    outputs = [target_logits(each, target[:-1].tolist(), seed) for each, target in pairs]
    return _numbered(source=sources, target=targets, output=outputs)


def write_source(folder: Path, modality: str) -> Path | None:
    """Write what bundles of a modality are judged on."""
    if modality == "tensors":
        return None  # the samples in the bundle
    if modality == "speech":
        return write_sounds(folder / "sounds", 6)
    if modality in ("image_encoder", "dual_encoder"):
        for index in range(6):
            pixels = np.random.default_rng(index).integers(0, 256, (9, 8, 3), np.uint8)
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        return folder / "images"
    folder.mkdir(parents=True, exist_ok=True)
    generator, path = np.random.default_rng(0), folder / "text.txt"
    lines = [" ".join(generator.choice(WORDS[1:], size=12)) for _ in range(12)]
    path.write_text("\n".join(lines))
    return path


def _numbered(**arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}_{i}": each for name, rows in arrays.items() for i, each in enumerate(rows)}
