"""What the compressed model answers in torch, for its graph to be compared with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from edgelr.compress.compressed_model import installed, multiplied
from edgelr.compress.factors import FactorSet
from edgelr.core.inputs import Pair
from edgelr.core.tasks import TASKS
from edgelr.data.padding import left_padded
from edgelr.model import generate as targets
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import answers, named_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@torch.no_grad()
def write_answers(
    model: LoadedModel,
    factors: FactorSet,
    prompts: Sequence[NDArray[Any]],
    new_tokens: int,
    path: Path,
) -> None:
    """Write what the compressed model answers to ``prompts``.

    Decoders: logits of every prompt position, and ``new_tokens`` greedy tokens. Others: what
    their graphs answer. With them, how far float32 decides these answers: the largest difference
    to the same model with its factors multiplied out, which rounds in other places.

    Args:
        model: the dense one.
        factors: of the sites that are compressed, as they are exported.
        prompts: token ids ``(length,)``, pixels ``(3, side, side)``, or a sound
            ``(mel_bins, frames)``; ids and pixels of a model that compares them.
        new_tokens: that a decoder goes on for.
        path: of the ``.npz``; see ``runtime.validate.parity``.
    """
    with installed(model.module, factors):
        arrays, rows = _inputs(model, prompts, new_tokens)
        outputs = [_output(model, row) for row in rows]
        if model.task == "text-generation":
            arrays["greedy"] = _continued(model, prompts, new_tokens)
    with multiplied(model.module, factors):
        again = [_output(model, row) for row in rows]
    name = "logits" if model.task == "text-generation" else "output"
    arrays |= {f"{name}_{index}": output for index, output in enumerate(outputs)}
    pairs = zip(outputs, again, strict=True)
    arrays["rounding"] = np.array(max(np.abs(first - second).max() for first, second in pairs))
    np.savez(path, allow_pickle=False, **arrays)


def embedding(model: LoadedModel, given: Tensor, mask: Tensor | None = None) -> Tensor:
    """Embed texts or images of a model that compares them, ``(rows, features)``.

    Args:
        model: compares texts with images.
        given: token ids ``(rows, length)``, or pixels ``(rows, 3, side, side)``.
        mask: of the ids, ``(rows, length)``; None where all of them are read.
    """
    module: Any = model.module
    if given.is_floating_point():
        output = module.get_image_features(pixel_values=given)
    else:
        output = module.get_text_features(input_ids=given, attention_mask=mask)
    found: Tensor = output.pooler_output
    return found


def _inputs(
    model: LoadedModel, prompts: Sequence[NDArray[Any]], new_tokens: int
) -> tuple[dict[str, NDArray[Any]], list[Tensor | Pair]]:
    """Name what is read as the ``.npz`` does, and make a batch of one of each row.

    Targets of pairs are greedy answers.
    """
    rows: list[Any] = [torch.tensor(prompt[None]) for prompt in prompts]
    if model.task == "text-generation":
        longest = max(len(prompt) for prompt in prompts)
        padded = [np.pad(prompt, (0, longest - len(prompt))) for prompt in prompts]
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        return {"prompts": np.array(padded, np.int64), "lengths": lengths}, rows
    if TASKS.get(model.task).has_pairs:
        rows = [_answered(model, row, new_tokens) for row in rows]
        sources = {f"source_{index}": prompt for index, prompt in enumerate(prompts)}
        greedy = {f"target_{index}": row.target[0].numpy() for index, row in enumerate(rows)}
        return sources | greedy, rows
    name = "row" if TASKS.get(model.task).matches else str(model.module.main_input_name)
    return {f"{name}_{index}": prompt for index, prompt in enumerate(prompts)}, rows


def _answered(model: LoadedModel, source: Tensor, new_tokens: int) -> Pair:
    """Pair a source with its greedy target."""
    mask = torch.ones(source.shape[:2], dtype=torch.int64)
    target = targets.answer(model, source, mask, new_tokens)
    return Pair(source, mask, torch.tensor(target))


def _output(model: LoadedModel, given: Tensor | Pair) -> NDArray[np.float32]:
    """What the graph of the model answers to a batch of one, without its first axis."""
    if isinstance(given, Pair):
        found = answers(model, given, given.source_mask)
    elif TASKS.get(model.task).matches:
        found = embedding(model, given)
    else:
        answered = model.module(**named_inputs(model, given, torch.ones_like(given)))
        found = getattr(answered, TASKS.get(model.task).output)
    output: NDArray[np.float32] = found[0].numpy()
    return output


def _continued(
    model: LoadedModel, prompts: Sequence[NDArray[Any]], new_tokens: int
) -> NDArray[np.int64]:
    """Greedy continuations of prompts that are read together, ``(prompts, new_tokens)``."""
    module = model.module
    step, mask = map(torch.tensor, left_padded(prompts, 0))
    counts_positions = "position_ids" in inspect.signature(module.forward).parameters
    tokens, past = torch.zeros(len(prompts), 0, dtype=torch.int64), None
    while tokens.shape[1] < new_tokens:
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -step.shape[1] :]
        output = module(
            input_ids=step,
            attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            **({"position_ids": positions} if counts_positions else {}),
        )
        step, past = output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values
        tokens = torch.cat((tokens, step), -1)
        mask = functional.pad(mask, (0, 1), value=1)
    continued: NDArray[np.int64] = tokens.numpy()
    return continued
