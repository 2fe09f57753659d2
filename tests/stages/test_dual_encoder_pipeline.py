"""From a folder that compares images with texts to a bundle, its proof, and what users call."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgelr import pipeline
from edgelr.cli import app
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.data.file_lists import listed
from edgelr.data.images import list_images
from edgelr.device.profile import load_profile
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.memory_cap import run_under_cap
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.dual_encoder import DualEncoderRunner
from edgelr.runtime.validate import accuracy
from edgelr.stages.transformers.subject import examine
from tests.conftest import TinyModels
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import MATCH_PIVOT, MATCHERS, Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

LABELS = ("dark", "half_lit", "bright")
PROMPTS = ("a photo of a bright", "a photo of a dark", "a photo of a half lit")
CASES = [
    f"{MATCH_PIVOT}/generic-cpu/float32",
    pytest.param(f"{MATCH_PIVOT}/jetson/float16", marks=pytest.mark.slow),
    pytest.param(f"{MATCH_PIVOT}/generic-cpu/int8", marks=pytest.mark.slow),
    *(
        pytest.param(f"{name}/generic-cpu/float32", marks=pytest.mark.breadth)
        for name in MATCHERS
        if name != MATCH_PIVOT
    ),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of three kinds, in a sub-folder each."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(48):
        label = LABELS[index % 3]
        pixels = np.random.default_rng(index).integers(0, 86, (24, 30, 3), np.uint8)
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(pixels + 85 * np.uint8(index % 3)).save(folder / label / f"{index:02}.png")
    return folder


@dataclass(frozen=True)
class Exported:
    model: LoadedModel
    bundle: ExportBundle
    dense: ExportBundle
    report: Report


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest,
    tiny_models: TinyModels,
    photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    name, profile, precision = request.param.split("/")
    model, cache = tiny_models[name], session_cache(tmp_path_factory)
    folder = tmp_path_factory.mktemp("matching") / "bundle"
    aim = {} if precision == "int8" else {"keep": 0.8}
    settings = quick(model, photos, profile=profile, precision=precision, **aim)
    report = pipeline.export(settings, load_profile(profile), folder, Run(cache, Recorder()))
    dense = pipeline.dense_bundle(settings, Run(cache, Recorder()))
    return Exported(model, read_bundle(folder, verify=True), dense, report)


def quick(model: LoadedModel, photos: Path, **changes: Any) -> Any:
    options = {"calibration": (str(photos),), "calibration_length": None, **changes}
    return quick_settings(model.folder, **options)


def test_both_graphs_share_one_file_of_weights(exported: Exported) -> None:
    bundle = exported.bundle
    suffix = "_fp16" if bundle.manifest.precision == "float16" else ""
    names = (f"vision_model{suffix}.onnx", f"text_model{suffix}.onnx")
    found = {path.name for path in (bundle.folder / "onnx").iterdir()}
    assert found == {*names, f"{names[0]}.data"}
    for name in names:
        values = load_graph(bundle.folder / "onnx" / name).graph.initializers.values()
        large = [value.const_value for value in values if value.const_value.nbytes > 1024]
        assert large
        assert {tensor.location for tensor in large} == {f"{names[0]}.data"}


def test_the_report_judges_the_chosen_prompt(exported: Exported) -> None:
    report = exported.report
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert report.validation.parity.padded_max_abs_error < 1e-3
    metrics = {metric.name: metric for metric in report.validation.metrics}
    assert report.validation.gate is not None
    assert report.validation.gate.metric == "top1_agreement"
    assert metrics["top1_agreement"].samples == metrics["image_cosine"].samples == 12
    assert metrics["text_cosine"].samples == 3
    assert all(0.5 < metrics[name].value < 1.0001 for name in ("image_cosine", "text_cosine"))
    changed = {site.name.partition(".")[0] for site in report.plan.sites if site.changed}
    assert changed == {"text_model", "vision_model"}
    assert exported.bundle.manifest.matching is not None
    assert exported.bundle.manifest.matching.prompts == PROMPTS
    assert report.comparison is not None
    image = exported.model.image
    assert image is not None
    padded = exported.bundle.manifest.matching.padded
    phases = [
        f"forward {image.tokens}",
        f"forward 8x{image.tokens}",
        f"text {30 if padded else 16}",
    ]
    assert list(report.comparison.ratios) == phases


def test_the_example_of_the_card_answers_like_the_bundle(exported: Exported, photos: Path) -> None:
    folder = exported.bundle.folder
    code = (SNIPPETS / "match_image.py").read_text(encoding="utf-8")
    assert code in (folder / "README.md").read_text(encoding="utf-8")
    alone = runpy.run_path(str(SNIPPETS / "match_image.py"))["ImageMatcher"](folder)
    runner = DualEncoderRunner.open(exported.bundle, Execution(threads=1))
    paths = listed(list_images(photos))[::9]
    images, texts = runner.embed(paths), runner.embed_texts(PROMPTS)
    found = alone.embed_images(list(map(str, paths))), alone.embed_texts(list(PROMPTS))
    np.testing.assert_allclose(found[0], images, atol=2e-3)
    np.testing.assert_allclose(found[1], texts, atol=2e-3)
    powers = np.exp(runner.logits(images, texts).astype(np.float64))
    padded = runner.matching.padded
    expected = powers / (1 + powers) if padded else powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(alone.chances(*found), expected, atol=2e-2)


def test_it_is_validated_again_on_its_own_prompts(exported: Exported, photos: Path) -> None:
    found = {each.name: each for each in accuracy(exported.dense, exported.bundle, photos)}
    assert (found["top1_agreement"].samples, found["text_cosine"].samples) == (48, 3)
    with pytest.raises(InputError, match=r"none are given.*--data"):
        accuracy(exported.dense, exported.bundle)
    with pytest.raises(InputError, match=r"names no prompts.*--labels"):
        accuracy(exported.bundle, exported.dense, photos)


def test_it_runs_in_the_memory_that_its_device_leaves(exported: Exported) -> None:
    if exported.bundle.manifest.precision == "float16":
        pytest.skip("this machine's CPU does not run float16")
    found = run_under_cap(exported.bundle, load_profile("generic-cpu"))
    assert found.passed, found.problem


# --- labels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pivot(tiny_models: TinyModels) -> LoadedModel:
    return tiny_models[MATCH_PIVOT]


def test_labels_are_those_of_a_file_or_of_sub_folders(
    pivot: LoadedModel, photos: Path, tmp_path: Path
) -> None:
    device, path = load_profile("generic-cpu"), tmp_path / "labels.txt"
    path.write_text("tree\n\nhouse \ntree\n", encoding="utf-8")
    for changes, expected in (
        ({}, PROMPTS),
        ({"labels": str(path)}, ("a photo of a tree", "a photo of a house")),
        ({"labels": str(path), "label_template": "{}"}, ("tree", "house")),
    ):
        found = examine(pivot, quick(pivot, photos, **changes), device).model
        assert found.matching is not None
        assert found.matching.prompts == expected
        assert found.prompts is not None
        assert len(found.prompts.ids) == len(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": "dark"}, r"there are 0 sub-folders with images.*--labels FILE"),
        ({"labels": "one.txt"}, r"there are 1 labels in .*one\.txt; expected at least 2"),
        ({"label_template": "a photo"}, r"'a photo' has no \{\}"),
    ],
)
def test_without_labels_they_are_asked_for(
    pivot: LoadedModel, photos: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    (tmp_path / "one.txt").write_text("tree\n", encoding="utf-8")
    folder = photos / changes.pop("calibration", "")
    if "labels" in changes:
        changes["labels"] = str(tmp_path / changes["labels"])
    with pytest.raises(InputError, match=message):
        examine(pivot, quick(pivot, folder, **changes), load_profile("generic-cpu"))


def test_labels_are_refused_where_nothing_is_compared(
    tiny_models: TinyModels, photos: Path
) -> None:
    model = tiny_models["vit"]
    with pytest.raises(InputError, match=r"--labels is for models that compare images"):
        examine(model, quick(model, photos, labels="labels.txt"), load_profile("generic-cpu"))


@pytest.mark.parametrize("command", [("bench", "methods"), ("sweep",)])
def test_comparisons_are_refused(
    pivot: LoadedModel, photos: Path, command: tuple[str, ...], tmp_path: Path
) -> None:
    options = ["--keep", "0.8", "--calibration", str(photos), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, str(pivot.folder), *options])
    assert done.exit_code == 2
    assert "a graph of texts and one of images" in " ".join(done.stderr.split())
