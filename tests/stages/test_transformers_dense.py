"""The dense graph is the model: what differs is traced, or ends the run before any other work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgelr import pipeline
from edgelr.core.bundle import Manifest
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.dimensions import compared_lengths
from edgelr.model.exporter import Exporter
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.transformers import dense as exports
from edgelr.stages.transformers.dense import as_exported, dense_export
from tests.conftest import MakeModel
from tests.helpers.run_exports import Recorder, quick_settings
from tests.stages.test_bundle_tests import write_biased
from tests.stages.test_embedders import embedder, with_layers

pytestmark = pytest.mark.whole

Change = Callable[[ir.Graph], None]


def corrupting(exporter: Exporter, change: Change, traced: Path) -> Exporter:
    """Declare a family whose graphs are changed after they were traced, once, into a folder."""

    def trace(module: Any, folder: Path, out: Path, example: dict[str, Any]) -> None:
        if not traced.exists():
            traced.mkdir()
            exporter.trace(module, folder, traced, example)
        shutil.copytree(traced, out, dirs_exist_ok=True)
        for path in out.rglob("*.onnx"):
            model = ir.load(path)
            change(model.graph)
            ir.save(model, path, external_data=f"{path.name}.data")

    return replace(exporter, trace=trace, retrace=None)


def weight(graph: ir.Graph, *parts: str) -> tuple[str, np.ndarray]:
    """Find the first initializer whose name has all of these parts."""
    name = next(name for name in graph.initializers if all(part in name for part in parts))
    return name, np.array(graph.initializers[name].const_value.numpy())


def put(graph: ir.Graph, name: str, array: np.ndarray) -> None:
    graph.initializers[name].const_value = ir.tensor(array, name=name)


def scaled_rotation(graph: ir.Graph) -> None:
    """As with another base: cosines and sines of other angles."""
    for part in ("cos_cache", "sin_cache"):
        name, table = weight(graph, part)
        put(graph, name, np.concatenate([table[::2], table[::2]])[: len(table)])


def late_positions(graph: ir.Graph) -> None:
    """Wrong beyond position 100 only."""
    for part in ("cos_cache", "sin_cache"):
        name, table = weight(graph, part)
        table[100:] = table[50 : 50 + len(table[100:])]
        put(graph, name, table)


def learned_positions(graph: ir.Graph) -> None:
    name, table = next(
        (name, np.array(value.const_value.numpy()))
        for name, value in graph.initializers.items()
        if "position" in name or "wpe" in name
        if value.const_value is not None and value.const_value.numpy().ndim == 2
    )
    table[60:] = table[30 : 30 + len(table[60:])]
    put(graph, name, table)


def norm_epsilon(graph: ir.Graph) -> None:
    changed = 0
    for node in graph:
        if "epsilon" in node.attributes:
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)
            changed += 1
    if not changed:  # traced: a constant that is added
        name = next(
            name
            for name, value in graph.initializers.items()
            if value.const_value is not None
            and value.const_value.size == 1
            and 0 < float(value.const_value.numpy()) < 1e-4
        )
        put(graph, name, np.full_like(graph.initializers[name].const_value.numpy(), 1e-2))


def swapped_head_rows(graph: ir.Graph) -> None:
    """Two outputs of a projection change places: one head's rows."""
    name, matrix = next(
        (name, np.array(value.const_value.numpy()))
        for name, value in graph.initializers.items()
        if value.const_value is not None
        if value.const_value.numpy().ndim == 2 and min(value.const_value.shape) > 16
        if "embed" not in name and "wte" not in name and "shared" not in name
    )
    matrix[:, [0, 1]] = matrix[:, [1, 0]]
    put(graph, name, matrix)


def missing_bias(graph: ir.Graph) -> None:
    name, bias = next(
        (name, np.array(value.const_value.numpy()))
        for name, value in graph.initializers.items()
        if name.endswith("bias") and np.abs(value.const_value.numpy()).max() > 0
    )
    put(graph, name, np.zeros_like(bias))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the traced graphs of every family, as they were traced."""
    return tmp_path_factory.mktemp("traced")


@pytest.mark.parametrize(
    ("family", "change", "place"),
    [
        ("llama", scaled_rotation, "from position 1 on"),
        ("llama", late_positions, "from position 10[0-9] on"),
        ("llama", norm_epsilon, "from position 0 on"),
        ("llama", swapped_head_rows, "from position"),
        ("gpt2", learned_positions, "from position 60 on"),
        ("gpt2", swapped_head_rows, "from position"),
        ("bert", norm_epsilon, "from position 0 on"),
        ("bert", swapped_head_rows, "from position 0 on"),
        ("t5", swapped_head_rows, "differ by"),
    ],
)
def test_a_corrupted_graph_is_caught_before_statistics(
    tiny_models: dict[str, LoadedModel], root: Path, tmp_path: Path,
    family: str, change: Change, place: str,
) -> None:  # fmt: skip
    assert_caught(tiny_models[family], change, place, tmp_path, root / family)


def nothing(graph: ir.Graph) -> None:
    """Leave the graph as it is: something beside it is wrong."""


def assert_caught(
    model: LoadedModel, change: Change, place: str, folder: Path, traced: Path | None = None
) -> None:
    """Plan a run of a model whose graph is changed; it ends before statistics.

    Args:
        model: model that is planned.
        change: corruption of its graph.
        place: part of the message.
        folder: folder of the test.
        traced: folder that keeps the graph as it was traced, for further corruptions.
    """
    kept = traced or folder / "traced"
    broken = replace(model, exporter=corrupting(model.exporter, change, kept))
    settings, recorder = quick_settings(model.folder), Recorder()
    with pytest.raises(InputError, match=f"does not answer like the model in torch.*{place}"):
        pipeline.plan(
            settings,
            load_profile("generic-cpu"),
            Run(Cache(folder / "cache"), recorder),
            source=ModelSource(broken),
        )
    assert recorder.stages == ["dense export"]
    assert not list((folder / "cache").glob("dense-*"))  # nothing wrong is kept


@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_a_bias_that_is_dropped_is_caught(tmp_path: Path, family: str) -> None:
    """Of a graph that was traced, and of one that onnxruntime-genai built."""
    folder = write_biased(tmp_path / "model", family)
    model = load(str(folder), Cache(tmp_path / "loaded"))
    assert_caught(model, missing_bias, "outputs differ by .* from position", tmp_path)


def test_another_pooling_is_caught(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is none of the graph's, but of those who read its manifest."""
    model = replace(make_model("bert"), pooling="cls")
    written = exports.dense_manifest

    def mean(*given: Any) -> Manifest:
        return replace(written(*given), pooling="mean")

    monkeypatch.setattr(exports, "dense_manifest", mean)
    assert_caught(model, nothing, "other embeddings, .* pooled otherwise", tmp_path)
    monkeypatch.undo()
    found = dense_export(model, Run(Cache(tmp_path / "whole"))).parity
    assert 0 < found.vector_max_abs_error < 1e-5


def test_a_layer_behind_the_pooling_is_caught(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", "bert", "mean_tokens")
    with_layers(folder, 24)
    model = load(str(folder), Cache(tmp_path / "loaded"))

    def dropped(graph: ir.Graph) -> None:
        name, bias = weight(graph, "sentence_layers", "bias")
        put(graph, name, np.zeros_like(bias))

    assert_caught(model, dropped, "outputs differ by", tmp_path)


def test_a_reranker_that_confuses_its_texts_is_caught(
    make_model: MakeModel, tmp_path: Path
) -> None:
    def one_type(graph: ir.Graph) -> None:
        name, table = weight(graph, "token_type_embeddings")
        table[1] = table[0]
        put(graph, name, table)

    model = make_model("bert", "text-ranking")
    assert_caught(model, one_type, "outputs differ by", tmp_path)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_a_model_that_the_builder_gets_wrong_is_traced(
    make_model: MakeModel, tmp_path: Path, kind: str
) -> None:
    """The builder knows no such rotary positions, and would build others without a word."""
    rotation = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0}
    model = make_model("llama", rope_parameters=rotation, initializer_range=0.1)
    recorder = Recorder()
    dense = dense_export(model, Run(Cache(tmp_path), recorder))
    assert dense.parity.retraced
    assert dense.parity.passed
    assert dense.parity.longest == model.longest_text
    assert "onnxruntime-genai builds another graph" in recorder.notes[0]
    assert as_exported(model, dense).exporter.trace is not model.exporter.trace
    again = dense_export(model, Run(Cache(tmp_path), Recorder()))
    assert again == dense


def test_a_graph_that_is_right_is_kept_with_its_figures(
    tiny_encoder: LoadedModel, tmp_path: Path
) -> None:
    dense = dense_export(tiny_encoder, Run(Cache(tmp_path)))
    found = dense.parity
    assert (found.against, found.retraced, found.first_position) == ("torch", False, None)
    assert 0 < found.max_abs_error < 1e-5 * found.largest_output
    assert as_exported(tiny_encoder, dense) is tiny_encoder


def test_lengths_reach_behind_the_one_at_which_positions_change() -> None:
    changing = SimpleNamespace(rope_parameters={"original_max_position_embeddings": 4096})
    assert compared_lengths(changing, 131072) == [8, 512, 4160]
    assert compared_lengths(changing, 2048) == [8, 512, 2048]
    assert compared_lengths(SimpleNamespace(), 100_000) == [8, 512, 1024]
    assert compared_lengths(SimpleNamespace(), 72) == [8, 72]


PARTIAL = {"phi": 0.5, "phi3": 1.0}  # shares of a head that are rotated
FREQUENCIES = 8  # half of a head of 16
ROTATIONS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "longrope": {
        "original_max_position_embeddings": 64,
        "short_factor": [1.0 + 0.1 * step for step in range(FREQUENCIES)],
        "long_factor": [2.0 + 0.5 * step for step in range(FREQUENCIES)],
    },
}


def _marked(family: str, kind: str) -> Any:
    quick = (family, kind) in (("phi3", "longrope"), ("qwen3", "yarn"))
    return pytest.param(family, kind, marks=pytest.mark.breadth if quick else pytest.mark.slow)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(_marked(family, kind) for family in ("llama", "qwen3", "granite") for kind in ROTATIONS),
        *(_marked(*each) for each in (("qwen2", "yarn"), ("mistral", "linear"), ("phi", "llama3"))),
        _marked("phi3", "longrope"),
    ],
)
def test_every_kind_of_rotary_positions_is_that_of_the_model(
    make_model: MakeModel, tmp_path: Path, family: str, kind: str
) -> None:
    """At 8 tokens, and at the longest text: behind the length at which they change."""
    rotation = {"rope_type": kind, "rope_theta": 10000.0, **ROTATIONS[kind]}
    if family in PARTIAL:
        rotation["partial_rotary_factor"] = PARTIAL[family]
    model = make_model(family, rope_parameters=rotation, initializer_range=0.1)
    assert model.module.config.rope_parameters["rope_type"] == kind
    found = dense_export(model, Run(Cache(tmp_path))).parity
    assert found.passed
    assert found.longest == model.longest_text >= 100
