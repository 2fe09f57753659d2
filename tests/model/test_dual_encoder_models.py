"""Models that compare images with prompts: sites of both towers, statistics, losses, prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgelr.compress import statistics
from edgelr.compress.compressed_model import gate_increase, loss_increase, multiplied
from edgelr.compress.decompose import truncate
from edgelr.compress.statistics import units_per_token
from edgelr.data.calibration import load_tokenizer
from edgelr.data.prompts import tokenized
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import answers, as_tensors, backward, divergence, dual_encoder
from edgelr.model.losses.embeddings import embedding_gradients
from edgelr.model.sites import find_groups, find_sites
from tests.compress.test_decompose import half, search_of, spectra_of
from tests.compress.test_statistics import watched
from tests.conftest import PROMPTS, collected, random_rows, with_prompts
from tests.helpers.run_exports import MATCH_PIVOT, MATCHERS, every_matcher
from tests.model.test_encoder_decoder_models import small_steps

Models = dict[str, LoadedModel]
DRAWS = 300  # of the label of every image


@every_matcher
def test_the_side_of_a_site_is_that_of_what_it_reads(tiny_models: Models, exporter: str) -> None:
    sites = find_sites(tiny_models[exporter])
    sides = {site.name.partition(".")[0]: site.reads_source for site in sites}
    assert sides == {"text_model": True, "vision_model": False}
    assert len(sites) == 2 * 2 * 6  # heads, and what pools, run once for an image or a text
    for group in find_groups(sites, "any") + find_groups(sites, "tied"):
        assert len({site.reads_source for site in group.sites}) == 1, group.name


@every_matcher
def test_input_grams_are_means_over_images_and_over_prompts(
    tiny_models: Models, exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "INPUT_BATCH_TOKENS", 60)  # batches of two images, and of one
    model = tiny_models[exporter]
    assert model.prompts is not None
    rows = random_rows(model, 5, 0)
    store = collected(model, [rows], tmp_path / "store", needs=("input_gram",))
    with torch.no_grad(), watched(model) as (inputs, _):
        answers(model, *as_tensors(rows.inputs, rows.mask))
    assert model.matching is not None
    read = torch.tensor(model.prompts.mask).bool()
    assert read.all() == model.matching.padded
    for site in find_sites(model):
        x = inputs[site.name]
        x = x[read] if site.reads_source else x.flatten(0, -2)
        torch.testing.assert_close(
            store.of(site).input_gram, x.T @ x / len(x), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "exporter",
    [
        pytest.param(name, marks=pytest.mark.breadth if name == MATCH_PIVOT else pytest.mark.slow)
        for name in MATCHERS
    ],
)
def test_gradient_grams_are_fisher_information_of_the_choice(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    """``J^T (diag(p) - p p^T) J``, by autograd, at every site of both towers."""
    model = tiny_models[exporter]
    rows = random_rows(model, 2, 0)
    exact: dict[str, torch.Tensor] = {}
    for image in torch.tensor(rows.inputs).split(1):
        mask = torch.ones(1, rows.mask.shape[1])
        with (
            torch.enable_grad(),
            watched(model) as (_, outputs),
            embedding_gradients(model.module),
        ):
            logits = answers(model, image.requires_grad_(), mask)
        p = logits.detach()[0, 0].softmax(-1)
        root = torch.diag(p.sqrt()) - p[:, None] * p.sqrt()
        found = torch.autograd.grad(
            logits, [*outputs.values()], root.T[:, None, None], is_grads_batched=True
        )
        for name, gradient in zip(outputs, found, strict=True):
            flat = gradient.flatten(0, -2)
            exact[name] = exact.get(name, 0) + flat.T @ flat / rows.tokens
    many = replace(rows, inputs=rows.inputs.repeat(DRAWS, 0), mask=rows.mask.repeat(DRAWS, 0))
    store = collected(model, [many], tmp_path / "store", needs=("output_gradient_gram",))
    for site in find_sites(model):
        gram = store.of(site).output_gradient_gram
        assert gram is not None
        assert (gram - exact[site.name]).norm() < 0.25 * exact[site.name].norm(), site.name
    assert units_per_token(model, [rows]) == pytest.approx(2 / rows.tokens)


@every_matcher
def test_the_loss_of_a_plan_is_predicted_in_nats_per_image(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    rows = random_rows(model, 48, 0)
    table = spectra_of(model, tmp_path / "run", "fisher", rows)
    plan = half(search_of(model, table))
    inputs, mask = as_tensors(rows.inputs, rows.mask)
    with torch.no_grad():
        before = answers(model, inputs, mask)
        with multiplied(model.module, small_steps(model, truncate(table, plan))):
            measured = float(divergence(answers(model, inputs, mask), before).mean())
    predicted = 0.1**2 * sum(site.candidate.predicted_loss for site in plan.sites)
    assert measured / 2.5 < predicted < 2.5 * measured


@every_matcher
def test_a_choice_is_judged_as_labels_are(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    rows = random_rows(model, 12, 0)
    name = next(site.name for site in find_sites(model) if site.reads_source)
    inputs, mask = as_tensors(rows.inputs, rows.mask)
    increases = loss_increase(model, rows), gate_increase(model, rows)
    assert [increase() for increase in increases] == [0, 0]
    weight = model.module.get_submodule(name).weight.data
    kept = weight.clone()
    before = answers(model, inputs, mask)[:, 0]
    weight.mul_(-3)
    after = answers(model, inputs, mask)[:, 0]
    found = [increase() for increase in increases]
    weight.copy_(kept)
    changed = float((after.argmax(-1) != before.argmax(-1)).float().mean())
    assert found[0] == pytest.approx(float(divergence(after, before).mean()), rel=1e-4)
    assert found[1] >= 2 * changed**2 > 0


def test_an_image_is_compared_with_some_of_many_prompts(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where gradients are taken; answers are about all of them."""
    model = tiny_models["clip"]
    assert model.prompts is not None
    monkeypatch.setattr(dual_encoder, "PROMPT_TOKENS", 3 * model.prompts.ids.shape[1])
    seen: list[torch.Tensor] = []
    handle = model.module.text_model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    rows = random_rows(model, 1, 0)
    inputs, generator = as_tensors(rows.inputs, rows.mask), torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(20):
            backward(model, *inputs, generator)
    answers(model, *inputs)
    handle.remove()
    *drawn, whole = seen
    assert {len(each) for each in drawn} == {3}
    assert len(whole) == len(PROMPTS)
    assert len({tuple(row) for each in drawn for row in each.tolist()}) == len(PROMPTS)


@every_matcher
def test_prompts_are_read_as_the_family_does(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    matching, tokenizer = model.matching, load_tokenizer(model.folder)
    assert matching is not None
    found = tokenized(["a cat", "a " * 60], tokenizer, matching)
    assert found.ids.shape == (2, matching.tokens)
    short = len(tokenized(["a cat"], tokenizer, replace(matching, padded=False)).ids[0])
    assert found.mask.sum(-1).tolist() == [matching.tokens if matching.padded else short, 30]
    assert set(found.ids[0, short:]) == {matching.pad_token}


def test_other_prompts_make_other_statistics(tiny_models: Models) -> None:
    model = tiny_models["clip"]
    other = with_prompts(model, PROMPTS[:3])
    assert random_rows(model, 2, 0).key != random_rows(other, 2, 0).key
    assert other.digest == model.digest
