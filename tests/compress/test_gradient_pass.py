"""Passes over texts: every token once, rows cut where they may be, and no hook that stays."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgelr.compress import gradient_pass
from edgelr.compress.gradient_pass import batches, fisher_pass, input_hooks
from edgelr.data.calibration import Calibration, from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites
from tests.conftest import collected, random_ids, random_rows, tiny_texts
from tests.helpers.run_exports import IMAGE_PIVOT, MATCH_PIVOT

Models = dict[str, LoadedModel]


def shapes(model: LoadedModel, parts: list[Calibration]) -> list[torch.Size]:
    """Masks of the batches of a pass that wants gradients."""
    found: list[torch.Size] = []
    modules = {site.name: model.module.get_submodule(site.name) for site in find_sites(model)[:1]}
    done: list[int] = []

    def watch(_name: str, _module: nn.Module, x: Tensor, output: Tensor) -> None:
        assert output.requires_grad
        found.append(x.shape[:-1])

    generator = torch.Generator().manual_seed(0)
    fisher_pass(model, modules, watch, parts, generator, "", lambda _, n, total: done.append(n))
    assert done[-1] == sum(part.tokens for part in parts)
    return found


def test_a_decoders_long_rows_are_cut_before_the_backward_pass(
    tiny_decoder: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of 14 tokens counts as pieces of 6, 6 and 2: memory decides, not the row."""
    long, site = random_ids(1, 14), find_sites(tiny_decoder)[0]
    monkeypatch.setattr(gradient_pass, "GRADIENT_BATCH_TOKENS", 6)
    whole = collected(tiny_decoder, [from_samples(long, "")], tmp_path / "whole")
    pieces = [from_samples(long[:, start : start + 6], "") for start in (0, 6, 12)]
    cut = collected(tiny_decoder, pieces, tmp_path / "cut")
    torch.testing.assert_close(
        whole.of(site).output_gradient_gram, cut.of(site).output_gradient_gram
    )


def test_texts_and_images_stay_whole_and_an_image_is_alone_with_its_prompts(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_pass, "GRADIENT_BATCH_TOKENS", 6)
    found = shapes(tiny_models["bert"], [tiny_texts(tiny_models["bert"])])
    assert found == [(1, 9), (1, 5), (1, 7)]
    monkeypatch.setattr(gradient_pass, "GRADIENT_BATCH_TOKENS", 10**6)
    vit, clip = tiny_models[IMAGE_PIVOT], tiny_models[MATCH_PIVOT]
    assert [shape[0] for shape in shapes(vit, [random_rows(vit, 3, 0)])] == [3]
    assert len(shapes(clip, [random_rows(clip, 3, 0)])) == 3


def test_batches_have_every_row_of_every_text_in_its_order() -> None:
    parts = [from_samples(random_ids(rows, 8, seed=rows), "") for rows in (5, 3)]
    found = [inputs for inputs, _ in batches(parts, 20)]
    assert [len(each) for each in found] == [2, 2, 1, 2, 1]
    assert torch.equal(torch.cat(found), torch.cat([torch.tensor(part.inputs) for part in parts]))
    pieces = list(batches(parts, 6, cut=True))
    assert [inputs.shape[1] for inputs, _ in pieces] == [6, 2] * 8
    assert sum(int(mask.sum()) for _, mask in pieces) == sum(part.tokens for part in parts)


def test_hooks_go_with_their_block_even_where_it_fails(tiny_encoder: LoadedModel) -> None:
    name = find_sites(tiny_encoder)[0].name
    module, seen = tiny_encoder.module.get_submodule(name), []
    with (
        suppress(ZeroDivisionError),
        input_hooks({name: module}, lambda name, x: seen.append((name, x.shape))),
    ):
        tiny_encoder.module(torch.tensor(random_ids(2, 5)))
        raise ZeroDivisionError
    tiny_encoder.module(torch.tensor(random_ids(2, 5)))
    assert [(name, shape[:2]) for name, shape in seen] == [(name, (2, 5))]
