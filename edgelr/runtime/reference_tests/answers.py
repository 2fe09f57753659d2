"""Reference values of encoders: outputs of a few inputs as they are, vectors or logits of more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config
from edgelr.core.tasks import decides_each_label
from edgelr.core.vocabulary import Array
from edgelr.runtime.reference_tests.values import WHOLE, ReferenceValues, columns_of
from edgelr.runtime.runners import Runner
from edgelr.runtime.runners.forward import pooled
from edgelr.runtime.validate import padding_error


def answers_of(
    original: Runner,
    runner: Runner,
    bundle: ExportBundle,
    rows: Sequence[Array],
    arrays: dict[str, Array],
) -> ReferenceValues:
    """Run every row alone: its vector where the model embeds, and else its logits.

    Args:
        original: runner of the dense export.
        runner: runner of the bundle.
        bundle: bundle that is tested.
        rows: inputs.
        arrays: stored inputs.
    """
    config, task = read_config(bundle), bundle.manifest.task
    several = task != "token-classification" and decides_each_label(
        config.get("problem_type"), len(config.get("id2label", ()))
    )
    outputs = [runner.run_alone(row) for row in rows]
    others = [original.run_alone(row) for row in rows]
    first, second = (_answers(found, rows, bundle) for found in (others, outputs))
    width = outputs[0].shape[-1]
    columns = np.arange(width) if task != "fill-mask" else columns_of(width)
    scale = max(float(np.abs(each).max()) for each in outputs)
    stored = {
        **arrays,
        **{f"output_{i}": each[..., columns] for i, each in enumerate(outputs[:WHOLE])},
    }
    stored |= {"answers": second[:, columns], "original_answers": first[:, columns]}
    stored |= {"columns": columns, "original_best": first.argmax(-1)}
    noise = padding_error(runner, rows, outputs[:WHOLE]) / scale
    if task == "feature-extraction":
        cosine = float((first * second).sum(-1).mean())
        return ReferenceValues(stored, scale, noise, cosine)
    labels = [each > 0 if several else each.argmax(-1) for each in (first, second)]
    same = labels[0] == labels[1]
    return ReferenceValues(stored, scale, noise, float(same.mean()), same.size, several)


def _answers(outputs: Sequence[Array], rows: Sequence[Array], bundle: ExportBundle) -> Array:
    """Unit vectors ``(rows, features)``, or logits of every row, token or mask."""
    if (mask := bundle.manifest.mask_token) is not None:
        pairs = zip(outputs, rows, strict=True)
        return np.concatenate([output[row == mask] for output, row in pairs])
    if bundle.manifest.task != "feature-extraction":
        return np.concatenate([each.reshape(-1, each.shape[-1]) for each in outputs])
    pooling = bundle.manifest.pooling or "mean"
    return np.concatenate(
        [pooled(each[None], np.ones((1, len(each)), np.int64), pooling) for each in outputs]
    )
