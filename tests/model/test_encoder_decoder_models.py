"""Models with an encoder and a decoder: which side a linear is on, statistics, losses, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgelr.compress import statistics
from edgelr.compress.compressed_model import loss_increase, mean_loss, multiplied
from edgelr.compress.decompose import truncate
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.forms import dense_weight
from edgelr.compress.statistics import units_per_token
from edgelr.core.inputs import SourceAndTarget
from edgelr.data.calibration import from_samples, weights, with_targets
from edgelr.data.generation import Start, read_start
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import answers, as_tensors, divergence
from edgelr.model.sites import find_groups, find_sites, weight_of
from tests.compress.test_decompose import half, search_of, spectra_of
from tests.compress.test_statistics import watched
from tests.conftest import collected, random_ids, random_rows, tiny_texts
from tests.helpers.run_exports import every_pair

COPIES = 600  # of a text: as many draws of the labels
Models = dict[str, LoadedModel]


def alone(part: Any) -> list[SourceAndTarget]:
    """Every pair alone, without padding."""
    return [as_tensors(inputs, mask)[0] for inputs, mask in part.batches(1)]


def run(model: LoadedModel, pair: SourceAndTarget) -> torch.Tensor:
    logits: torch.Tensor = answers(model, pair, torch.ones_like(pair.target[:, 1:]))
    return logits


def differentiable(model: LoadedModel, pair: SourceAndTarget) -> torch.Tensor:
    """Logits ``(1, tokens, vocabulary)`` as a function of what every site gives."""
    handles = [
        table.register_forward_hook(lambda _module, _args, output: output.requires_grad_())
        for table in model.module.modules()
        if isinstance(table, torch.nn.Embedding)
    ]
    logits = run(model, pair)
    for handle in handles:
        handle.remove()
    return logits


@every_pair
def test_the_side_of_a_site_is_that_of_what_it_reads(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    (pair,) = alone(random_rows(model, 1, 11))
    with torch.no_grad(), watched(model) as (inputs, _):
        run(model, pair)
    source = model.sound.tokens if model.sound else 11
    for site in find_sites(model):
        assert inputs[site.name].shape[1] == (source if site.reads_source else 14), site.name
    assert {site.reads_source for site in find_sites(model)} == {True, False}


@every_pair
def test_groups_do_not_mix_the_encoder_with_the_decoder(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    for grouping in ("any", "tied"):
        for group in find_groups(find_sites(model), grouping, model.exporter.tied_pairs):
            assert len({site.reads_source for site in group.sites}) == 1, group.name
    tied = find_groups(find_sites(model), "tied", model.exporter.tied_pairs)
    sides = {group.sites[0].reads_source for group in tied if group.kind == "tied"}
    assert sides == {False, True}


@every_pair
def test_input_grams_are_means_over_the_tokens_of_their_side(
    tiny_models: Models, exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "INPUT_BATCH_TOKENS", 40)  # several batches, padded
    model = tiny_models[exporter]
    parts = [tiny_texts(model), random_rows(model, 4, 7)]
    store = collected(model, parts, tmp_path / "store")
    sites = find_sites(model)
    expected = {site.name: torch.zeros(site.in_features, site.in_features) for site in sites}
    with torch.no_grad(), watched(model) as (inputs, _):
        for part, weight in zip(parts, weights(parts), strict=True):
            for pair in alone(part):
                run(model, pair)
                for site in sites:
                    x, tokens = inputs[site.name][0], part.tokens
                    count = part.source_tokens if site.reads_source else tokens
                    expected[site.name] += x.T @ x * (weight / count)
    for site in sites:
        found = store.of(site).input_gram
        torch.testing.assert_close(found, expected[site.name], rtol=1e-4, atol=1e-5)


@every_pair
def test_gradient_grams_are_fisher_information_per_predicted_token(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    """``J^T (diag(p) - p p^T) J``, by autograd, at every site of both sides."""
    model, texts = tiny_models[exporter], tiny_texts(tiny_models[exporter])
    exact: dict[str, torch.Tensor] = {}
    with torch.enable_grad(), watched(model) as (_, outputs):
        for pair in alone(texts):
            logits = differentiable(model, pair)
            p = logits.detach().softmax(-1)[0]
            root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None]
            for place in range(len(p)):
                directions = torch.zeros(p.shape[-1], *logits.shape)
                directions[:, 0, place] = root[place].T
                found = torch.autograd.grad(
                    logits,
                    list(outputs.values()),
                    directions,
                    retain_graph=True,
                    is_grads_batched=True,
                )
                for name, gradient in zip(outputs, found, strict=True):
                    flat = gradient.flatten(0, -2)
                    gram = flat.T @ flat / texts.tokens
                    exact[name] = exact[name] + gram if name in exact else gram
    needs = ("output_gradient_gram",)
    store = collected(model, [tiny_texts(model, COPIES)], tmp_path / "store", needs=needs)
    for site in find_sites(model):
        found_gram = store.of(site).output_gradient_gram
        assert found_gram is not None
        assert (found_gram - exact[site.name]).norm() < 0.2 * exact[site.name].norm(), site.name
        assert found_gram.trace() == pytest.approx(float(exact[site.name].trace()), rel=0.1)
    assert units_per_token(model, [texts]) == 1


@every_pair
def test_the_loss_of_a_plan_is_predicted_in_nats_per_predicted_token(
    tiny_models: Models, exporter: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    too_low = {"mt5": 2.6, "whisper": 2.9}.get(exporter)
    if too_low:  # the errors at the many positions of a sound are not independent
        reason = f"on this random model it is {too_low} times too low, and not within 2.5"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    model, texts = tiny_models[exporter], random_rows(tiny_models[exporter], 48, 16)
    table = spectra_of(model, tmp_path / "run", "fisher", texts)
    plan = half(search_of(model, table))
    small = small_steps(model, truncate(table, plan))
    inputs, mask = as_tensors(texts.inputs, texts.mask)
    with torch.no_grad():
        before = answers(model, inputs, mask)
        with multiplied(model.module, small):
            measured = float(divergence(answers(model, inputs, mask), before).mean())
    predicted = 0.1**2 * sum(site.candidate.predicted_loss for site in plan.sites)
    assert measured / 2.5 < predicted < 2.5 * measured


def small_steps(model: LoadedModel, factors: FactorSet) -> FactorSet:
    """A tenth of the way from dense weights to factors: a second-order prediction's size."""
    mixed = {}
    for name, each in factors.items():
        dense = weight_of(model, name)
        mixed[name] = dense + 0.1 * (dense_weight(each) - dense)
    return {
        name: LowRank(each.T.contiguous(), torch.eye(len(each))) for name, each in mixed.items()
    }


@every_pair
def test_the_loss_is_that_of_every_predicted_token(tiny_models: Models, exporter: str) -> None:
    model, texts = tiny_models[exporter], tiny_texts(tiny_models[exporter])
    losses = []
    with torch.no_grad():
        for pair in alone(texts):
            scores = run(model, pair)[0].double().log_softmax(-1)
            targets = pair.target[0, 1:].tolist()
            losses += [-float(row[token]) for row, token in zip(scores, targets, strict=True)]
    assert len(losses) == texts.tokens == 4 + 6 + 3
    assert mean_loss(model, texts) == pytest.approx(np.mean(losses), rel=1e-5)
    assert loss_increase(model, texts)() == 0


def test_pairs_are_cut_and_chosen_as_rows() -> None:
    sources = from_samples(random_ids(3, 5), "sources")
    pairs = with_targets(sources, [[0, 7, 8], [0, 9, 10, 11], [0, 12]])
    assert (pairs.tokens, pairs.source_tokens, pairs.length) == (2 + 3 + 1, 15, 3 + 5)
    shapes = [(each.target.shape, mask.shape) for each, mask in pairs.batches(1)]
    assert shapes == [((1, 3), (1, 2)), ((1, 4), (1, 3)), ((1, 2), (1, 1))]
    assert pairs.first(1).inputs.target.tolist() == [[0, 7, 8, 0]]
    changed = with_targets(sources, [[0, 7, 8], [0, 9, 10, 11], [0, 13]])
    assert changed.key != pairs.key


def test_a_target_begins_and_ends_as_generation_says() -> None:
    config = {"decoder_start_token_id": 2, "eos_token_id": 1, "bos_token_id": 0}
    assert read_start(config, {}) == Start((2,), (1,))
    generation = {"forced_bos_token_id": 5, "eos_token_id": [1, 4], "bad_words_ids": [[9], [7, 8]]}
    start = read_start(config, generation)
    assert start == Start((2, 5), (1, 4), (9,))
    assert start.until_end([6, 4, 1]) == [6, 4]
    assert start.until_end([6, 3]) == [6, 3]
    assert np.isneginf(start.allowed(np.zeros((1, 10)), 0)[0]).nonzero()[0].tolist() == [9]
