"""Families: found by their model types, documented, and able to run what they declare."""

from __future__ import annotations

import pytest

from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.model.exporter import EXPORTERS, exporter_for
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_groups, find_sites
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import every_exporter


def test_every_exporter_answers_to_its_model_types() -> None:
    for name, exporter in EXPORTERS.items():
        assert exporter.tiny_config().model_type in exporter.model_types, name
        assert set(exporter.tasks) <= set(TASKS.names()), name
        for model_type in exporter.model_types:
            assert exporter_for(model_type) is exporter


def test_no_model_type_belongs_to_two_families() -> None:
    types = [each for _, exporter in EXPORTERS.items() for each in exporter.model_types]
    assert len(types) == len(set(types))


def test_every_exporter_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for name, exporter in EXPORTERS.items():
        types = ", ".join(f"`{each}`" for each in exporter.model_types)
        assert f"| `{name}` | {types} |" in page


def test_an_unknown_model_type_gets_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'gpt9'.*Known model types: bart, beit, bert, .*, llama"):
        exporter_for("gpt9")


@every_exporter
def test_a_declared_pair_is_in_every_block_of_transposed_shapes(
    tiny_models: dict[str, LoadedModel], exporter: str, request: pytest.FixtureRequest
) -> None:
    if exporter == "opt":
        reason = "transformers lets OPT's feed-forward linears read rows and tokens as one axis"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    model = tiny_models[exporter]
    sites = find_sites(model)
    groups = find_groups(sites, "tied", model.exporter.tied_pairs)
    tied = [group.sites for group in groups if group.kind == "tied"]
    for wanted, _ in model.exporter.tied_pairs:
        widening = {site.name for site in sites if site.name.endswith(f".{wanted}")}
        assert widening
        assert widening <= {first.name for first, _ in tied}
    for first, second in tied:
        assert (first.in_features, first.out_features) == (second.out_features, second.in_features)
        assert first.block == second.block
