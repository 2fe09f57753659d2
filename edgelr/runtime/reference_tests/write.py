"""Write what the tests of a bundle compare with: inputs, and what the original and it answer."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgelr.core.bundle import ExportBundle, read_config, read_tokenizer
from edgelr.core.tasks import TASKS, decides_each_label
from edgelr.data.file_lists import spread_evenly
from edgelr.data.images import list_images, normalized, read_picture
from edgelr.data.padding import right_padded
from edgelr.data.tensors import Samples, count, feeds, load_samples
from edgelr.data.text import PROMPTS, chunk_tokens, mask_tokens, read_text, split_sentences
from edgelr.runtime.eval_samples import open_runner
from edgelr.runtime.evaluators.perplexity import log_softmax
from edgelr.runtime.reference_tests.encoder_decoder import of_pairs
from edgelr.runtime.reference_tests.values import GREEDY_TOKENS, WHOLE, Taken, columns_of, leads_of
from edgelr.runtime.runners.decoder import Decoder
from edgelr.runtime.runners.encoder import Encoder, pooled
from edgelr.runtime.runners.encoder_decoder import PairRunner
from edgelr.runtime.runners.image_encoder import ImageEncoder
from edgelr.runtime.runners.tensors import Tensors, open_tensors
from edgelr.runtime.session import Array
from edgelr.runtime.validate import left_padding_error, max_abs_error

ARRAYS, FACTS = "references.npz", "expected.json"
CHUNKS, CHUNK_LENGTH = 4, 256  # of text whose losses are stored
SENTENCES, IMAGES = 64, 16
VALUES = 65536  # of one output of a graph that came from anywhere
NOISE = 10  # one machine's rounding errors are ten times those between two ways of running
# Shares of the largest output. Floors: what other processors of one kind may differ by. Elsewhere:
# another provider or kind of processor, which may round products to 10 bits or sum in float16.
FLOOR = {"float32": 1e-4, "float16": 5e-3, "whole": 5e-3}
ELSEWHERE = {"float32": 1e-2, "float16": 3e-2, "whole": 5e-2}


def write_references(
    original: ExportBundle, bundle: ExportBundle, text: Path | None, folder: Path
) -> None:
    """Run the original and the bundle on the CPU, and store what they answer in ``folder``.

    Args:
        original: the dense export.
        bundle: what is tested, as it ships.
        text: what the bundle was judged on: a text, a list of images, or inputs of a graph.
        folder: gets ``references.npz`` and ``expected.json``.
    """
    if bundle.manifest.task == "tensors":
        taken = _of_tensors(original, bundle)
    else:
        first, second = (open_runner(each, "cpu", None) for each in (original, bundle))
        if isinstance(first, Decoder) and isinstance(second, Decoder):
            taken = _of_decoders(first, second, bundle, text)
        elif isinstance(first, Encoder) and isinstance(second, Encoder):
            taken = _of_encoders(first, second, bundle, text)
        elif isinstance(first, PairRunner) and isinstance(second, PairRunner):
            taken = of_pairs(first, second, bundle, text)
        else:
            assert isinstance(first, ImageEncoder)
            assert isinstance(second, ImageEncoder)
            taken = _of_images(first, second, bundle, text)
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **taken.arrays)
    facts = json.dumps(_facts(bundle, taken), indent=2)
    (folder / FACTS).write_text(facts + "\n", encoding="utf-8")


def _facts(bundle: ExportBundle, taken: Taken) -> dict[str, object]:
    """Say what is expected, and how closely."""
    manifest = bundle.manifest
    quantized = manifest.residency is not None and manifest.residency.quantized
    kind = "whole" if quantized else manifest.precision
    elsewhere = ELSEWHERE[kind]
    metric = TASKS.get(manifest.task).metric
    slack = 1 / taken.decisions if taken.decisions else FLOOR["float32"]
    rises = metric == "perplexity"
    if rises:
        limit = max(1 + (manifest.max_drop or 0.0), taken.at_export * (1 + slack))
    else:
        limit = min(1 - (manifest.max_drop or 0.0), taken.at_export - slack)
    return {
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "scale": taken.scale,
        "tolerance": min(elsewhere, max(FLOOR[kind], NOISE * taken.noise)),
        "tolerance_elsewhere": elsewhere,
        "metric": "perplexity_ratio" if rises else metric,
        "at_export": taken.at_export,
        "limit": limit,
        "limit_elsewhere": limit * (1 + elsewhere) if rises else limit - max(elsewhere, slack),
        "several_labels": taken.several_labels,
    }


def _of_decoders(
    original: Decoder, bundle: Decoder, folder: ExportBundle, text: Path | None
) -> Taken:
    """Logits of prompts, losses of chunks, greedy tokens."""
    tokenizer = read_tokenizer(folder)
    rows = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    logits = [bundle.logits(np.array([row]))[0][0] for row in rows]
    columns = columns_of(logits[0].shape[-1])
    length = min(CHUNK_LENGTH, folder.manifest.context_tokens)
    chunks = chunk_tokens(read_text(text), tokenizer, CHUNKS, length)
    first, best = _losses(original, chunks)
    second, _ = _losses(bundle, chunks)
    prompts = [np.array(row) for row in rows]
    greedy = np.concatenate([bundle.continued([row], GREEDY_TOKENS) for row in prompts])
    pairs = zip(prompts, greedy, strict=True)
    scale = max(float(np.abs(each).max()) for each in logits)
    arrays = {
        "texts": np.array(PROMPTS),
        "ids": right_padded(rows)[0],
        "lengths": np.array([len(row) for row in rows]),
        "columns": columns,
        **{f"logits_{index}": each[:, columns] for index, each in enumerate(logits)},
        "greedy": greedy,
        "leads": np.stack([leads_of(bundle.predicted(*pair)) for pair in pairs]),
        "chunks": chunks,
        "losses": second,
        "original_losses": first,
        "original_best": best,
    }
    noise = max(left_padding_error(bundle, rows, logits), _step_error(bundle, rows, logits))
    return Taken(arrays, scale, noise / scale, float(np.exp((second - first).mean())))


def _losses(decoder: Decoder, chunks: Array) -> tuple[Array, Array]:
    """Losses of the next tokens in nats, and the likeliest ones, both ``(chunks, length - 1)``."""
    losses, best = [], []
    for chunk in chunks:
        logits = decoder.logits(chunk[None])[0][0, :-1]
        losses.append(-log_softmax(logits)[np.arange(len(chunk) - 1), chunk[1:]])
        best.append(logits.argmax(-1))
    return np.array(losses, np.float32), np.array(best, np.int32)


def _step_error(decoder: Decoder, rows: Sequence[Sequence[int]], alone: Sequence[Array]) -> float:
    worst = 0.0
    for row, wanted in zip(rows, alone, strict=True):
        cache = decoder.empty_cache(1, len(row))
        for place, token in enumerate(row):
            logits, cache = decoder.logits(np.array([[token]]), past=cache)
            worst = max(worst, max_abs_error(logits[0, 0], wanted[place]))
    return worst


def _of_encoders(
    original: Encoder, bundle: Encoder, folder: ExportBundle, text: Path | None
) -> Taken:
    """Outputs of a few texts as they are; vectors or logits of more."""
    texts = split_sentences(read_text(text), SENTENCES)
    found, mask = bundle.encode(texts), bundle.mask_token
    whole = [each.ids for each in found]
    rows = whole if mask is None else [mask_tokens(each, mask) for each in found]
    ids, given = (right_padded(each)[0] for each in (whole, rows))
    arrays = {
        "texts": np.array(texts),
        "ids": ids,
        "lengths": np.array([len(row) for row in rows]),
        "masked": given == mask if mask is not None else np.zeros_like(ids, bool),
    }
    return _of_answers(original, bundle, folder, [np.array(row) for row in rows], arrays)


def _of_images(
    original: ImageEncoder, bundle: ImageEncoder, folder: ExportBundle, source: Path | None
) -> Taken:
    """Outputs of a few images as they are; vectors or logits of more."""
    assert source is not None, "edgelr brings no images"
    paths = spread_evenly(list_images(source), IMAGES)
    pictures = [read_picture(path, bundle.image) for path in paths]
    rows = [normalized(picture, bundle.image) for picture in pictures]
    return _of_answers(original, bundle, folder, rows, {"pictures": np.stack(pictures)})


def _of_answers(
    original: Encoder | ImageEncoder,
    bundle: Encoder | ImageEncoder,
    folder: ExportBundle,
    rows: Sequence[Array],
    arrays: dict[str, Array],
) -> Taken:
    """Run every row alone: its vector where the model embeds, and else its logits."""
    config, task = read_config(folder), folder.manifest.task
    several = task != "token-classification" and decides_each_label(
        config.get("problem_type"), len(config.get("id2label", ()))
    )
    outputs = [bundle.run(row[None])[0] for row in rows]
    others = [original.run(row[None])[0] for row in rows]
    first, second = (_answers(found, rows, folder) for found in (others, outputs))
    width = outputs[0].shape[-1]
    columns = np.arange(width) if task != "fill-mask" else columns_of(width)
    together = zip(bundle.run_together(rows[:WHOLE]), outputs, strict=False)
    scale = max(float(np.abs(each).max()) for each in outputs)
    arrays |= {f"output_{i}": each[..., columns] for i, each in enumerate(outputs[:WHOLE])}
    arrays |= {"answers": second[:, columns], "original_answers": first[:, columns]}
    arrays |= {"columns": columns, "original_best": first.argmax(-1)}
    noise = max(max_abs_error(*pair) for pair in together) / scale
    if task == "feature-extraction":
        return Taken(arrays, scale, noise, float((first * second).sum(-1).mean()))
    labels = [each > 0 if several else each.argmax(-1) for each in (first, second)]
    same = labels[0] == labels[1]
    return Taken(arrays, scale, noise, float(same.mean()), same.size, several)


def _answers(outputs: Sequence[Array], rows: Sequence[Array], folder: ExportBundle) -> Array:
    """Unit vectors ``(rows, features)``, or logits of every row, token or mask."""
    if (mask := folder.manifest.mask_token) is not None:
        pairs = zip(outputs, rows, strict=True)
        return np.concatenate([output[row == mask] for output, row in pairs])
    if folder.manifest.task != "feature-extraction":
        return np.concatenate([each.reshape(-1, each.shape[-1]) for each in outputs])
    pooling = folder.manifest.pooling or "mean"
    ones = [np.ones((1, len(each)), np.int64) for each in outputs]
    pairs = zip(outputs, ones, strict=True)
    return np.concatenate([pooled(each[None], mask, pooling) for each, mask in pairs])


def _of_tensors(original: ExportBundle, bundle: ExportBundle) -> Taken:
    """Values of the outputs of a few runs, spread over each."""
    samples: Samples = load_samples(bundle.folder / "edgelr/inputs.npz")
    runs = range(min(WHOLE, count(samples)))
    first, second = (open_tensors(each.model_path) for each in (original, bundle))
    arrays: dict[str, Array] = {}
    cosines, scale = [], 0.0
    for run in runs:
        wanted, found = (_values(each, feeds(samples, run)) for each in (first, second))
        for name, values in found.items():
            arrays[f"output_{run}.{name}"] = values
            arrays[f"original_{run}.{name}"] = wanted[name]
            pair = np.where(np.isfinite(wanted[name]), (wanted[name], values), 0).astype(np.float64)
            lengths = np.linalg.norm(pair, axis=-1)
            cosines.append(float(pair[0] @ pair[1]) / max(float(lengths.prod()), 1e-30))
            finite = np.abs(values[np.isfinite(values)])
            scale = max(scale, float(finite.max(initial=0.0)))
    return Taken(arrays, scale or 1.0, 0.0, float(np.mean(cosines)))


def _values(runner: Tensors, given: Samples) -> dict[str, Array]:
    """Outputs of one run as flat float32 arrays, every n-th value of large ones."""
    found = runner.outputs(given)
    return {
        name: values.reshape(-1)[:: -(-values.size // VALUES)].astype(np.float32)
        for name, values in found.items()
        if values.size
    }
