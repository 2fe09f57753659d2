"""Losses in torch: distances of answers, what is counted, and gradients of sampled labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgelr.core.tasks import TASKS
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import (
    answers,
    as_tensors,
    backward,
    backward_twice,
    counted,
    decisions_per_row,
    divergence,
    drawn,
    pool,
    total_variation,
)
from tests.conftest import MakeModel, tiny_texts
from tests.helpers.run_exports import FILLING, every_task

Models = dict[str, LoadedModel]


def logits(seed: int) -> Tensor:
    return torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(seed)) * 3


# --- distances -----------------------------------------------------------------------------------


def test_divergence_is_that_of_the_probabilities() -> None:
    found, expected = logits(0), logits(1)
    p, q = expected.double().softmax(-1), found.double().softmax(-1)
    torch.testing.assert_close(divergence(found, expected), (p * (p / q).log()).sum(-1))
    assert (divergence(found, expected) > 0).all()
    assert divergence(found, found + 5.0).abs().max() < 1e-6  # logits have no origin


def test_total_variation_is_the_largest_difference_of_any_event() -> None:
    found, expected = logits(0), logits(1)
    p, q = expected.softmax(-1), found.softmax(-1)
    events = ((torch.arange(2**7)[:, None] >> torch.arange(7)) & 1).float()
    largest = ((p - q) @ events.T).max(-1).values
    torch.testing.assert_close(total_variation(found, expected), largest)
    assert (total_variation(found, expected) <= (divergence(found, expected) / 2).sqrt()).all()


def test_pooling_takes_the_first_token_or_the_mean_of_the_real_ones() -> None:
    hidden = torch.arange(24.0).reshape(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(pool(hidden, mask, "cls"), hidden[:, 0])
    assert torch.equal(pool(hidden, mask, "mean")[0], hidden[0, :2].mean(0))
    assert torch.equal(pool(hidden, mask, "mean")[1], hidden[1].mean(0))


# --- what is counted -----------------------------------------------------------------------------


@every_task
def test_padding_has_no_loss_and_a_text_has_one_where_it_is_judged_whole(
    tiny_models: Models, exporter: str
) -> None:
    model, texts = tiny_models[exporter], tiny_texts(tiny_models[exporter])
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    answered = answers(model, inputs, mask)
    found = counted(answered, model, inputs, mask)
    assert found.shape == answered.shape[:-1]
    whole = TASKS.get(model.task).by_row
    assert int(found.sum()) == (len(texts.inputs) if whole else texts.tokens)


def test_only_masks_are_filled_in(tiny_models: Models) -> None:
    model, texts = tiny_models[FILLING], tiny_texts(tiny_models[FILLING])
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    found = counted(answers(model, inputs, mask), model, inputs, mask)
    assert int(found.sum()) == int(((inputs == model.mask_token) & mask.bool()).sum()) > 0


def test_labels_that_do_not_exclude_each_other_are_decided_one_by_one(
    make_model: MakeModel,
) -> None:
    """Each between yes and no, whose logit is the label's own against 0."""
    several = make_model(
        "bert", task="text-classification", problem_type="multi_label_classification"
    )
    texts = tiny_texts(several)
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    with torch.no_grad():
        found = answers(several, inputs, mask)
        plain = several.module(input_ids=inputs, attention_mask=mask).logits
    assert decisions_per_row(several) == 5
    assert found.shape == (3, 5, 2)
    torch.testing.assert_close(found.softmax(-1)[..., 0], plain.sigmoid())


def test_labels_that_exclude_each_other_are_one_decision(tiny_models: Models) -> None:
    assert decisions_per_row(tiny_models["bert:text-classification"]) == 1
    assert decisions_per_row(tiny_models["llama"]) == 1


# --- gradients -----------------------------------------------------------------------------------


def test_classes_are_drawn_as_often_as_they_are_probable() -> None:
    probable = torch.tensor([0.0, 0.1, 0.0, 0.25, 0.65, 0.0])
    found = drawn(probable.expand(200_000, -1), torch.Generator().manual_seed(0))
    shares = torch.bincount(found[:, 0], minlength=6) / len(found)
    torch.testing.assert_close(shares, probable, rtol=0, atol=0.005)
    assert (shares[probable == 0] == 0).all()


class Watched:
    """Gradients that reach the output of a model's first linear."""

    def __init__(self, model: LoadedModel) -> None:
        self.found: list[Tensor] = []
        linear = next(part for part in model.module.modules() if isinstance(part, torch.nn.Linear))
        self.handle = linear.register_full_backward_hook(
            lambda _module, _inputs, outputs: self.found.append(outputs[0].clone())
        )


@every_task
def test_two_gradients_of_one_pass_are_those_of_two_passes(
    tiny_models: Models, exporter: str
) -> None:
    """The sampled one is that of ``backward``; the other is zero where nothing has changed."""
    model, texts = tiny_models[exporter], tiny_texts(tiny_models[exporter])
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    expected = answers(model, inputs, mask).detach()
    watched, calls = Watched(model), []
    with torch.enable_grad():
        backward(model, inputs, mask, torch.Generator().manual_seed(3))
        backward_twice(
            model, inputs, mask, expected, torch.Generator().manual_seed(3),
            lambda: calls.append(len(watched.found)),
        )  # fmt: skip
    watched.handle.remove()
    sampled, nothing, again = watched.found
    assert calls == [2]
    torch.testing.assert_close(again, sampled)
    assert nothing.abs().max() < 1e-4 * sampled.abs().max()


@every_task
def test_the_first_gradient_lowers_the_distance_to_what_is_expected(
    tiny_models: Models, exporter: str
) -> None:
    """Its product with a small step is the change of the distance."""
    model, texts = tiny_models[exporter], tiny_texts(tiny_models[exporter])
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    found = answers(model, inputs, mask).detach()
    generator = torch.Generator().manual_seed(1)
    expected = found + 0.3 * torch.randn(found.shape, generator=generator).to(found.dtype)
    linear = next(part for part in model.module.modules() if isinstance(part, torch.nn.Linear))
    watched, step = Watched(model), 1e-3
    with torch.enable_grad():
        backward_twice(
            model, inputs, mask, expected, torch.Generator().manual_seed(3), lambda: None
        )
    watched.handle.remove()
    gradient = watched.found[0]

    def distance() -> float:
        after = answers(model, inputs, mask).detach()
        if TASKS.get(model.task).loss == "embedding":
            return float((after - expected).square().sum() / 2)
        real = counted(after, model, inputs, mask)
        return float(divergence(after, expected)[real].sum())

    unit = gradient / gradient.norm()
    distances = []
    for sign in (-1, 1):
        handle = linear.register_forward_hook(
            lambda _module, _args, output, sign=sign: output + sign * step * unit
        )
        distances.append(distance())
        handle.remove()
    slope = (distances[1] - distances[0]) / (2 * step)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)
    assert math.isfinite(slope)
