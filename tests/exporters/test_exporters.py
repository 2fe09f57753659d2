"""The contract of every exporter: trace, full-rank rewrite, ONNX Runtime equals torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import FactorSet
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.tasks import TASKS
from edgelr.model.exporter import EXPORTERS, exporter_for
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import ENCODER, TEXTS, MakeModel, beside
from tests.helpers import tiny_models as families
from tests.helpers.method_contract import (
    LIMIT,
    errors,
    factors_of,
    fusions,
    longest_error,
    steps_error,
    write_graph,
)
from tests.helpers.run_exports import CASES, Recorder, every_decoder, session_cache

NAMES = EXPORTERS.names()


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, LoadedModel]) -> LoadedModel:
    return tiny_models[request.param]


@pytest.fixture(scope="module")
def dense(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> DenseExport:
    return dense_export(model, Run(session_cache(tmp_path_factory), Recorder()))


@pytest.fixture(scope="module")
def half(
    model: LoadedModel, dense: DenseExport, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, FactorSet]:
    """The graph at half of the ranks, and its factors."""
    factors = factors_of(model, 0.5)
    return write_graph(model, dense, factors, tmp_path_factory.mktemp("half")), factors


@pytest.mark.parametrize("name", NAMES)
def test_a_declaration_is_complete(name: str) -> None:
    exporter = EXPORTERS.get(name)
    config = exporter.tiny_config()
    assert config.model_type in exporter.model_types
    assert exporter_for(config.model_type) is exporter
    assert all(hasattr(transformers, TASKS.get(task).auto_class) for task in exporter.tasks)
    inputs = exporter.example_inputs(config, 3, 7)
    if inputs.keys() == {"pixel_values"}:
        assert inputs["pixel_values"].shape == (3, 3, 7, 7)
        return
    if beside(exporter.tasks[0]) == TEXTS:
        assert inputs.pop("pixel_values").shape == (3, 3, 7, 7)
        assert {len(tensor) for tensor in inputs.values()} == {4}
        assert int(inputs["input_ids"].max()) < config.text_config.vocab_size
        return
    target = inputs.pop("decoder_input_ids", None)
    assert (target is not None) == (beside(exporter.tasks[0]) == ENCODER)
    assert target is None or target.shape == (3, 4)
    if inputs.keys() == {"input_features"}:
        assert inputs["input_features"].shape[:2] == (3, config.num_mel_bins)
        return
    assert {tuple(tensor.shape) for tensor in inputs.values()} == {(3, 7)}
    assert int(inputs["input_ids"].max()) < config.vocab_size


def test_the_tiny_model_has_a_distinct_size_on_every_axis(model: LoadedModel) -> None:
    shape, longest = model.dimensions, model.longest_text
    sizes = [shape.hidden_size, shape.intermediate_size, shape.vocab_size, longest]
    assert len(set(sizes)) == len(sizes)
    assert shape.layers >= 2


def test_nothing_that_is_kept_dense_is_a_site(model: LoadedModel) -> None:
    last = {site.name.rpartition(".")[2] for site in find_sites(model)}
    assert not last & set(model.exporter.keep_dense)


def test_the_dense_graph_equals_torch(model: LoadedModel, dense: DenseExport) -> None:
    assert_equal(errors(model, dense.bundle.model_path))


@every_decoder
def test_a_padded_batch_goes_on_like_torch(model: LoadedModel, dense: DenseExport) -> None:
    assert steps_error(model, dense) <= LIMIT


def test_the_longest_text_runs(model: LoadedModel, dense: DenseExport) -> None:
    assert longest_error(model, dense.bundle.model_path) <= LIMIT


def test_the_graph_at_full_rank_equals_torch(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    assert_equal(errors(model, write_graph(model, dense, factors_of(model, 1), tmp_path)))


def test_the_graph_at_half_rank_equals_the_compressed_model(
    model: LoadedModel, half: tuple[Path, FactorSet]
) -> None:
    path, factors = half
    with installed(model.module, factors):
        assert_equal(errors(model, path))
    assert min(errors(model, path).values()) > 0.01  # from the model that was compressed


def test_every_fusion_of_the_dense_graph_survives(
    model: LoadedModel, dense: DenseExport, half: tuple[Path, FactorSet]
) -> None:
    found = fusions(half[0])
    assert found == fusions(dense.bundle.model_path)
    fused = found["MultiHeadAttention"] + found["GroupQueryAttention"] + found["FusedMatMul"]
    assert fused > 0 or not model.dimensions.attention_heads


def assert_equal(found: dict[str, float]) -> None:
    """Every difference from torch is within the limit."""
    assert found
    assert all(each <= LIMIT for each in found.values()), found


def test_the_table_of_families_lists_what_is_declared_and_where_it_is_tested() -> None:
    cases = families.cases()
    assert {(each.family, each.task) for each in cases} == families.declared()
    rows = families.rows()
    assert set(rows) == {each.words for each in cases}, "run 'python -m tests.helpers.tiny_models'"
    for row in rows.values():
        figures = families.figures(row)
        assert len(figures) >= 4, row
        assert max(figures) <= LIMIT, row


def test_heads_that_the_attention_does_not_take_are_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"heads of 12.*multiples of 8"):
        dense_export(make_model("gpt2", n_embd=36), Run(Cache(tmp_path), Recorder()))
