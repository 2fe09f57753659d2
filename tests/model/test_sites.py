"""Which linears are sites, and which of them read the same input."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from edgelr.core.errors import InputError
from edgelr.core.sites import LinearSite
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_groups, find_sites, weight_of
from tests.conftest import MakeModel
from tests.helpers.run_exports import every_exporter

Models = dict[str, LoadedModel]


class Bare(nn.Module):
    """A module that takes what token models take, around one part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.embedding, self.part = nn.Embedding(160, 6), part
        self.config = SimpleNamespace(model_type="llama", vocab_size=160)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x: Tensor = self.part(self.embedding(input_ids) * attention_mask[..., None])
        return x


def around(part: nn.Module, like: LoadedModel) -> LoadedModel:
    def batch(config: object, rows: int, tokens: int) -> dict[str, Tensor]:
        ids = torch.ones(rows, tokens, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ids}

    exporter = replace(like.exporter, example_inputs=batch)
    return replace(like, module=Bare(part), exporter=exporter, source="bare")


def by_role(sites: tuple[LinearSite, ...], block: int) -> dict[str, LinearSite]:
    return {site.role.rpartition(".")[2]: site for site in sites if site.block == block}


def without_kept(model: LoadedModel) -> LoadedModel:
    return replace(model, exporter=replace(model.exporter, keep_dense=()))


@every_exporter
def test_a_site_describes_its_linear(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    for site in find_sites(model):
        linear = model.module.get_submodule(site.name)
        assert isinstance(linear, nn.Conv2d if site.kernel else nn.Linear)
        weight = weight_of(model, site.name)
        assert weight.shape == (site.out_features, site.in_features)
        assert weight.numel() == site.parameters
        assert site.has_bias == (linear.bias is not None)


@every_exporter
def test_blocks_have_the_same_roles_in_the_same_order(tiny_models: Models, exporter: str) -> None:
    if tiny_models[exporter].exporter.shape is not None:
        pytest.skip("its blocks are stages, which differ")
    sites = find_sites(tiny_models[exporter])
    first, second = ([site.role for site in sites if site.block == block] for block in (0, 1))
    assert first == second
    assert len(set(first)) == len(first) > 1
    blocks = [-1 if site.block is None else site.block for site in sites]  # what is before them
    assert blocks == sorted(blocks)


@every_exporter
def test_sites_that_read_one_input_have_its_size(tiny_models: Models, exporter: str) -> None:
    sites = {site.name: site for site in find_sites(tiny_models[exporter])}
    for site in sites.values():
        assert sites[site.input_name].input_name == site.input_name
        assert sites[site.input_name].in_features == site.in_features


@every_exporter
def test_looking_for_sites_leaves_no_hook(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    assert find_sites(model) == find_sites(model)
    assert not any(part._forward_pre_hooks for part in model.module.modules())


def test_a_decoders_shared_inputs_are_found(tiny_decoder: LoadedModel) -> None:
    for block in (0, 1):
        roles = by_role(find_sites(tiny_decoder), block)
        reads = {role: site.input_name.rpartition(".")[2] for role, site in roles.items()}
        assert reads == {
            "q_proj": "q_proj",
            "k_proj": "q_proj",
            "v_proj": "q_proj",
            "o_proj": "o_proj",
            "gate_proj": "gate_proj",
            "up_proj": "gate_proj",
            "down_proj": "down_proj",
        }
        assert all(f".{block}." in site.input_name for site in roles.values())


def test_an_encoders_shared_inputs_are_found(tiny_encoder: LoadedModel) -> None:
    roles = by_role(find_sites(tiny_encoder), 1)
    assert roles["query"].input_name == roles["key"].input_name == roles["value"].input_name
    assert len({site.input_name for site in find_sites(tiny_encoder)}) == 2 * 4


def test_a_tied_head_is_no_site(tiny_decoder: LoadedModel) -> None:
    assert "lm_head" not in [site.name for site in find_sites(without_kept(tiny_decoder))]


def test_a_head_of_its_own_is_a_site_unless_the_family_keeps_it_dense(
    make_model: MakeModel,
) -> None:
    model = make_model("llama", tie_word_embeddings=False)
    assert "lm_head" not in [site.name for site in find_sites(model)]
    head = find_sites(without_kept(model))[-1]
    assert (head.name, head.role, head.block) == ("lm_head", "lm_head", None)


def test_what_the_family_keeps_dense_is_no_site(tiny_encoder: LoadedModel) -> None:
    kept = replace(tiny_encoder, exporter=replace(tiny_encoder.exporter, keep_dense=("key",)))
    names = {site.name for site in find_sites(tiny_encoder)}
    assert {name for name in names if not name.endswith(".key")} == {
        site.name for site in find_sites(kept)
    }


def test_linears_that_share_a_weight_or_never_run_are_no_sites(tiny_decoder: LoadedModel) -> None:
    part = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 9))
    part[1].weight = part[0].weight
    model = around(part, tiny_decoder)
    model.module.spare = nn.Linear(6, 7)
    assert [site.name for site in find_sites(model)] == ["part.2"]


def test_a_model_without_linears_is_refused(tiny_decoder: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"bare has no linear.*lm_head.*Nothing was written"):
        find_sites(around(nn.Identity(), tiny_decoder))


@every_exporter
def test_every_site_is_in_one_group(tiny_models: Models, exporter: str) -> None:
    sites = find_sites(tiny_models[exporter])
    groups = find_groups(sites)
    assert tuple(site for group in groups for site in group.sites) == sites
    assert [group.name for group in groups] == [site.name for site in sites]
    assert [group.out_features for group in groups] == [site.out_features for site in sites]


def test_a_linear_that_runs_on_something_else_too_is_no_site(tiny_models: Models) -> None:
    sites = {site.name: site for site in find_sites(tiny_models["deberta"])}
    value = sites["encoder.layer.0.attention.self.value_proj"]
    assert value.input_name == value.name  # the first reader of its input that is a site
    assert not any("query_proj" in name or "key_proj" in name for name in sites)
