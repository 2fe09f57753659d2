"""Both Grams against direct computations, without the batches, hooks and panels of the pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelr.compress import grams, statistics
from edgelr.compress.statistics import units_per_token
from edgelr.data.calibration import Calibration, from_samples, weights
from edgelr.model.convolutions import features_last, read_features
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import pool
from edgelr.model.sites import find_sites, positions
from tests.conftest import MakeModel, collected, random_ids, random_rows, tiny_texts
from tests.helpers.run_exports import every_exporter

COPIES = 1500  # of a text: as many draws of the labels or of the noise
IMAGE_COPIES = 400  # an image has many positions, and more of them differ
WITHIN = 0.15  # of a Gram, after as many draws as a text has
AT_ONCE = 64  # directions that are sent backwards together
Models = dict[str, LoadedModel]


@contextmanager
def watched(model: LoadedModel) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Inputs and outputs of every site, ``{site: (batch, tokens, n)}``, of the last pass."""
    inputs, outputs = {}, {}

    def note(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        inputs[name] = torch.cat([*read_features(module, x)])
        outputs[name] = y

    handles = [
        model.module.get_submodule(site.name).register_forward_hook(
            lambda module, args, y, name=site.name: note(name, module, args[0], y)
        )
        for site in find_sites(model)
    ]
    yield inputs, outputs
    for handle in handles:
        handle.remove()


def one_by_one(texts: Calibration) -> Iterator[Tensor]:
    """Every text alone, ``(1, tokens)``, without its padding; or every image."""
    for row, _ in texts.rows():
        yield torch.tensor(row)[None]


def loss_directions(model: LoadedModel, row: Tensor) -> tuple[Tensor, Tensor]:
    """What is sent backwards, ``target``, and the root of its Fisher information.

    Returns:
        ``target`` and ``roots (directions, *target.shape)``: the sum of ``r r^T`` over the roots
        is ``diag(p) - p p^T`` at every decision, the identity for an embedding.
    """
    if model.image is None:
        embedded = model.module.get_input_embeddings()(row).requires_grad_()
        answer = model.module(inputs_embeds=embedded)
    else:
        answer = model.module(pixel_values=row.requires_grad_())
    if model.task == "feature-extraction":
        hidden = answer.last_hidden_state
        target = functional.normalize(pool(hidden, torch.ones(hidden.shape[:2]), model.pooling))
        return target, torch.eye(target.shape[-1])[:, None]
    logits = answer.logits if answer.logits.ndim == 3 else answer.logits[:, None]
    p = logits.detach().softmax(-1)[0]  # (decisions, classes)
    root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None]  # (tokens, v, directions)
    tokens, size = p.shape
    roots = torch.zeros(tokens, size, tokens, size)  # (token, direction, token, v)
    for token in range(tokens):
        roots[token, :, token] = root[token].T
    return logits, roots.reshape(tokens * size, 1, tokens, size)


def exact_gradient_grams(model: LoadedModel, texts: Calibration) -> dict[str, Tensor]:
    """``J^T F J`` per token, by autograd, ``{site: (out, out)}``."""
    total: dict[str, Tensor] = {}
    with torch.enable_grad(), watched(model) as (_, outputs):
        for row in one_by_one(texts):
            target, roots = loss_directions(model, row)
            for several in roots.split(AT_ONCE):
                found = torch.autograd.grad(
                    target,
                    list(outputs.values()),
                    several,
                    retain_graph=True,
                    is_grads_batched=True,
                )
                for name, batch in zip(outputs, found, strict=True):
                    linear = model.module.get_submodule(name)
                    flat = [features_last(linear, gradient).flatten(0, -2) for gradient in batch]
                    gradients = torch.cat(flat)
                    gram = gradients.T @ gradients
                    total[name] = total[name] + gram if name in total else gram
    often = positions(find_sites(model))
    return {name: gram / (texts.tokens * often[name]) for name, gram in total.items()}


@every_exporter
def test_input_grams_are_the_weighted_mean_over_the_real_tokens(
    tiny_models: Models, exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "INPUT_BATCH_TOKENS", 20)  # several batches
    monkeypatch.setattr(grams, "FEWEST_COLUMNS", 17)  # several panels
    model = tiny_models[exporter]
    parts = [tiny_texts(model), random_rows(model, 4, 7)]
    store = collected(model, parts, tmp_path / "store")
    expected = {site.name: 0.0 for site in find_sites(model)}
    often = positions(find_sites(model))
    with torch.no_grad(), watched(model) as (inputs, _):
        for part, weight in zip(parts, weights(parts), strict=True):
            for row in one_by_one(part):
                model.module(**{model.module.main_input_name: row})
                for name, x in inputs.items():
                    flat, share = x.flatten(0, -2), weight / (part.tokens * often[name])
                    expected[name] = expected[name] + flat.T @ flat * share
    for site in find_sites(model):
        found, wanted = store.of(site).input_gram, torch.as_tensor(expected[site.name])
        rounding = 1e-5 * max(1.0, float(wanted.abs().max()))  # of sums, as large as their largest
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=rounding)


def test_gradients_are_those_of_a_part_of_much_text(
    tiny_decoder: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [from_samples(random_ids(rows, 8), "") for rows in (8, 8)]
    needs = {"output_gradient_gram"}
    monkeypatch.setattr(statistics, "GRADIENT_TOKENS", 32)
    found = collected(tiny_decoder, parts, tmp_path / "all", needs=needs)
    few = [part.first(16) for part in parts]
    alone = collected(tiny_decoder, few, tmp_path / "few", needs=needs)
    for site in find_sites(tiny_decoder):
        gram, expected = (each.of(site).output_gradient_gram for each in (found, alone))
        torch.testing.assert_close(gram, expected)


@every_exporter
def test_gradient_grams_approach_the_exact_fisher_information(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    copies = COPIES if model.image is None else IMAGE_COPIES
    within = WITHIN * math.sqrt(COPIES / copies)
    exact = exact_gradient_grams(model, tiny_texts(model))
    texts, needs = [tiny_texts(model, copies)], ("output_gradient_gram",)
    store = collected(model, texts, tmp_path / "store", needs=needs)
    for site in find_sites(model):
        found, expected = store.of(site).output_gradient_gram, exact[site.name]
        assert found is not None
        assert (found - expected).norm() < within * expected.norm(), site.name
        assert found.trace() == pytest.approx(float(expected.trace()), rel=within / 3)


@every_exporter
def test_the_same_seed_gives_the_same_grams(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    site = find_sites(model)[3]
    first, again, other = (
        collected(model, [tiny_texts(model, 8)], tmp_path / name, seed)
        .of(site)
        .output_gradient_gram
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("exporter", "names"),
    [
        ("bert", ("hidden_dropout_prob", "attention_probs_dropout_prob")),
        ("llama", ("attention_dropout",)),
    ],
)
def test_dropout_of_the_configuration_changes_no_gram(
    make_model: MakeModel, exporter: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    models = [make_model(exporter, **dict.fromkeys(names, share)) for share in (0.0, 0.5)]
    stores = [
        collected(model, [tiny_texts(model, 3)], tmp_path / str(index))
        for index, model in enumerate(models)
    ]
    for site in find_sites(models[0]):
        calm, shaken = (store.of(site) for store in stores)
        torch.testing.assert_close(calm.output_gradient_gram, shaken.output_gradient_gram)
        torch.testing.assert_close(calm.input_gram, shaken.input_gram)


@every_exporter
def test_collecting_leaves_no_trace_in_the_model(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    hooks = [(len(p._forward_hooks), len(p._forward_pre_hooks)) for p in model.module.modules()]
    collected(model, [tiny_texts(model)], tmp_path / "store")
    left = [(len(p._forward_hooks), len(p._forward_pre_hooks)) for p in model.module.modules()]
    assert left == hooks
    assert not any(part.training for part in model.module.modules())
    assert all(each.grad is None for each in model.module.parameters())


@every_exporter
def test_a_store_holds_what_is_needed(tiny_models: Models, exporter: str, tmp_path: Path) -> None:
    model = tiny_models[exporter]
    store = collected(model, [tiny_texts(model)], tmp_path / "store", needs={"input_gram"})
    assert store.of(find_sites(model)[0]).output_gradient_gram is None
    assert not list((tmp_path / "store").glob("output_gradient_gram*"))


def test_an_encoder_has_one_loss_per_text(
    tiny_decoder: LoadedModel, tiny_encoder: LoadedModel
) -> None:
    parts = [tiny_texts(tiny_encoder), tiny_texts(tiny_encoder, copies=2)]
    assert units_per_token(tiny_encoder, parts) == pytest.approx(3 / (9 + 5 + 7))
    assert units_per_token(tiny_decoder, parts) == 1
