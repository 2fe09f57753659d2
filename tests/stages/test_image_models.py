"""Models that read images, from the folder to the example of the bundle's card."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from edgelr import pipeline
from edgelr.commands.bench.request import BenchRequest
from edgelr.commands.bench.setup import common_ground
from edgelr.compress import rescale
from edgelr.compress.compressed_model import all_answers, installed, loss_increase, multiplied
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.heal.distillation import batches, mean_distillation_loss, pieces
from edgelr.compress.statistics import units_per_token
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.data.calibration import from_images
from edgelr.data.file_lists import listed
from edgelr.data.images import list_images
from edgelr.device.profile import load_profile
from edgelr.graph.build import build
from edgelr.graph.workload import read_workload
from edgelr.model.exporter import EXPORTERS
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import answers, backward, drawn
from edgelr.model.sites import find_sites, positions, weight_of
from edgelr.model.token_table import find_table
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner
from edgelr.runtime.session import open_session
from edgelr.runtime.validate import accuracy
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.factorize import make_factors
from edgelr.stages.transformers.subject import examine
from tests.compress.test_heal import product
from tests.conftest import TINY_IMAGES, MakeModel, random_pixels, random_rows
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import (
    IMAGE_PIVOT,
    MATCH_PIVOT,
    Recorder,
    quick_settings,
    session_cache,
)

pytestmark = pytest.mark.whole

Models = dict[str, LoadedModel]
PATCHES = 25


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, of several shapes."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(40):
        size = (24 + index % 3, 30 - index % 5, 3)
        pixels = np.random.default_rng(index).integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


# --- what is loaded ------------------------------------------------------------------------------


def test_an_image_has_its_patches_and_what_the_family_adds(tiny_models: Models) -> None:
    for family, added in (("vit", 1), ("deit", 2), ("dinov2", 1), ("beit", 1), ("swin", 0)):
        model = tiny_models[family]
        assert model.image is not None
        assert model.image.tokens == PATCHES + added, family
        shape, longest = model.dimensions, model.longest_text
        assert (shape.vocab_size, shape.kv_heads, longest) == (0, 0, PATCHES + added)


def test_registers_are_tokens(tmp_path: Path) -> None:
    sizes = EXPORTERS.get("dinov2").tiny_config().to_dict()
    del sizes["model_type"]
    config = transformers.Dinov2WithRegistersConfig(**{**sizes, "num_register_tokens": 3})
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(TINY_IMAGES))
    found = load(str(tmp_path / "model"), Cache(tmp_path / "cache"))
    assert found.image is not None
    assert found.image.tokens == PATCHES + 1 + 3


def test_what_embeds_is_the_first_token(tiny_models: Models) -> None:
    assert (tiny_models["vit"].task, tiny_models["vit"].pooling) == ("feature-extraction", "cls")
    labels = tiny_models[IMAGE_PIVOT]
    assert (labels.task, labels.pooling) == ("image-classification", None)


def test_a_model_with_a_teachers_token_labels(tmp_path: Path) -> None:
    config = EXPORTERS.get("deit").tiny_config()
    config.num_labels = 5
    transformers.DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(TINY_IMAGES))
    found = load(str(tmp_path / "model"), Cache(tmp_path / "cache"))
    assert found.task == "image-classification"
    assert all(".layers." in site.name for site in find_sites(found))


def test_linears_of_patches_are_sites_and_heads_are_not(tiny_models: Models) -> None:
    sites = [site.name for site in find_sites(tiny_models[IMAGE_PIVOT])]
    assert len(sites) == 2 * 6
    assert all(name.startswith("vit.layers.") for name in sites)
    assert find_table(tiny_models[IMAGE_PIVOT]) is None


def test_stages_see_an_image_at_resolutions_of_their_own(tiny_models: Models) -> None:
    """Of 10 x 10 positions, windows of 4 x 4 read 12 x 12; the second has 5 x 5 and reads 8 x 8."""
    often = positions(find_sites(tiny_models["swin"]))
    found = {name.removeprefix("encoder."): round(25 * each) for name, each in often.items()}
    stages = {"layers.0.": (100, 144), "layers.1.": (25, 64)}
    blocks = {f"{stage}blocks.{block}.": sizes for stage, sizes in stages.items() for block in "01"}
    for prefix, (plain, padded) in blocks.items():
        assert found[f"{prefix}mlp.fc1"] == found[f"{prefix}mlp.fc2"] == plain
        assert found[f"{prefix}attention.q_proj"] == found[f"{prefix}attention.o_proj"] == padded
    assert found["layers.0.downsample.reduction"] == 25


def test_what_weighs_channels_is_no_site(tiny_models: Models) -> None:
    """It runs once for an image. Of 10 x 10 positions, the second block makes 5 x 5."""
    model = tiny_models["efficientnet"]
    often = positions(find_sites(model))
    found = [round(25 * each) for each in often.values()]
    assert found == [100, 100, 100, 25, 25, 25, 25, 25, 25]
    assert not any("squeeze_excite" in name or "depthwise" in name for name in often)
    shape = model.dimensions
    assert (shape.layers, shape.hidden_size, shape.intermediate_size) == (4, 16, 48)
    assert shape.positions_per_token == often["efficientnet.encoder.blocks.1.expansion.expand_conv"]


@pytest.mark.parametrize(
    "name", ["swin", MATCH_PIVOT, pytest.param("resnet", marks=pytest.mark.breadth)]
)
def test_derivatives_of_an_image_are_summed_over_its_positions(
    tiny_models: Models, name: str, tmp_path: Path
) -> None:
    model = tiny_models[name]
    rows, sites = random_rows(model, 3, 0), find_sites(model)
    factors: FactorSet = {site.name: full(model, site.name) for site in sites}
    found, _ = rescale.collect(model, factors, [rows], 0, tmp_path, print)
    derivatives = torch.cat(list(found.pieces())) * found.unit
    scales = torch.ones(len(found.unit), requires_grad=True)
    scaled: FactorSet = {
        name: LowRank(each.down, each.up * scales[found.columns[name], None])
        for name, each in factors.items()
        if isinstance(each, LowRank)
    }
    with torch.enable_grad(), installed(model.module, scaled):
        found_answers = answers(model, torch.tensor(rows.inputs), torch.tensor(rows.mask))
    sent = sent_back(model, found_answers.detach(), torch.Generator().manual_seed(0))
    for vector, sample, each in zip(found_answers, sent, derivatives, strict=True):
        (expected,) = torch.autograd.grad((vector * sample).sum(), scales, retain_graph=True)
        torch.testing.assert_close(each, expected, atol=2e-3 * float(expected.max()), rtol=2e-3)


@pytest.mark.breadth
@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_products_are_counted_for_every_position(
    tiny_models: Models, name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_models[name]
    dense, sites = (
        dense_export(model, Run(session_cache(tmp_path_factory), Recorder())),
        find_sites(model),
    )
    factors = {site.name: product(weight_of(model, site.name), 8) for site in sites}
    path = tmp_path / "model.onnx"
    build(model, dense.traced, sites, factors, path)
    sizes = {site: (site.parameters, 8 * (site.in_features + site.out_features)) for site in sites}
    kept = 3 * 2 * 2 * 24 * 100 / 25 if name == "swin" else 96 * 5 / 9  # patches; the head
    for index, graph in enumerate((dense.bundle.model_path, path)):
        found = read_workload(graph, model.image.tokens).products
        work = sum(each.inputs * each.outputs * each.positions_per_token for each in found)
        expected = sum(size[index] * site.positions_per_token for site, size in sizes.items())
        assert work == pytest.approx(expected + kept)


@pytest.mark.breadth
@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_what_has_stages_is_not_refitted(
    tiny_models: Models, name: str, photos: Path, tmp_path: Path
) -> None:
    settings = quick(tiny_models[name], photos, recipe="mpifa", forms=("dense", "low_rank"))
    device, cache = load_profile("generic-cpu"), Cache(tmp_path)
    made = pipeline.plan(settings, device, Run(cache, Recorder()))
    with pytest.raises(InputError, match=r"at another resolution.*without a refit"):
        make_factors(made, Run(cache, Recorder()))


def sent_back(model: LoadedModel, found: Tensor, generator: torch.Generator) -> Tensor:
    """What a pass of the Fisher information sends back, with the same draws."""
    if model.task == "feature-extraction":
        return torch.randn(found.shape, generator=generator)
    labels = torch.stack([drawn(row.softmax(-1), generator) for row in found])
    return found.softmax(-1).scatter_add(-1, labels, -torch.ones(labels.shape))


def full(model: LoadedModel, name: str) -> LowRank:
    u, s, v = torch.linalg.svd(weight_of(model, name).T, full_matrices=False)
    return LowRank(u * s, v)


def test_lengths_are_not_asked_of_an_image(tiny_models: Models, photos: Path) -> None:
    model, device = tiny_models["vit"], load_profile("jetson")
    subject = examine(model, quick(model, photos), device)
    assert subject.context_tokens == subject.device.prefill_tokens == PATCHES + 1
    with pytest.raises(InputError, match=r"--context asks for 8 tokens; .* 26 for every image"):
        examine(model, quick(model, photos, context_tokens=8), device)


def quick(model: LoadedModel, photos: Path, **changes: Any) -> Settings:
    options = {"calibration": (str(photos),), "calibration_length": None, "keep": 0.8}
    return quick_settings(model.folder, **{**options, **changes})


def test_a_factory_brings_an_image_processor(
    tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_models["vit"].folder
    (tmp_path / "made.py").write_text(
        "import transformers\n\n\ndef make():\n"
        f"    model = transformers.ViTModel.from_pretrained({str(folder)!r}, "
        "add_pooling_layer=False)\n"
        f"    return model, transformers.AutoImageProcessor.from_pretrained({str(folder)!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = load("made:make", Cache(tmp_path / "cache"))
    assert found.image == tiny_models["vit"].image


def test_a_bench_judges_on_folders(
    tiny_models: Models, photos: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings, device = quick(tiny_models["vit"], photos, keep=None), load_profile("generic-cpu")
    cache = session_cache(tmp_path_factory)
    for files, name in (((), photos.name), ((str(photos),), photos.name)):
        question = BenchRequest(settings, ("svd",), (0.8,), files, tokens=5 * 26)
        found = common_ground(question, device, tmp_path / "out", Run(cache, Recorder()))
        assert list(found.texts) == [name]
        assert found.texts[name].inputs.shape == (5, 3, 20, 20)
        assert found.calibration[0].inputs.shape == (20, 3, 20, 20)  # every second photo


# --- calibration and losses ----------------------------------------------------------------------


def test_images_are_rows_of_equal_length() -> None:
    found = from_images(random_pixels(5, 20), 26, "photos")
    assert (found.tokens, found.length) == (5 * 26, 26)
    read = list(found.batches(2))
    assert [pixels.shape for pixels, _ in read] == [(2, 3, 20, 20)] * 2 + [(1, 3, 20, 20)]
    assert [mask.shape for _, mask in read] == [(2, 26)] * 2 + [(1, 26)]
    assert [(row.shape, tokens) for row, tokens in found.rows()] == [((3, 20, 20), 26)] * 5
    few = found.first(3 * 26)
    np.testing.assert_array_equal(few.inputs, found.inputs[[0, 2, 4]])
    assert few.key != found.key


def test_an_image_has_one_loss(tiny_models: Models, make_model: MakeModel) -> None:
    several = make_model(
        "vit", "image-classification", problem_type="multi_label_classification", num_labels=4
    )
    rows = random_rows(several, 3, 0)
    assert units_per_token(tiny_models[IMAGE_PIVOT], [rows]) == pytest.approx(1 / 26)
    assert units_per_token(several, [rows]) == pytest.approx(4 / 26)
    assert all_answers(several, rows).shape == (3 * 4, 2)


def test_gradients_of_labels_are_what_was_drawn(tiny_models: Models) -> None:
    """Their mean is nothing, and their second moment ``p (1 - p)``."""
    model = tiny_models[IMAGE_PIVOT]
    rows = random_rows(model, 2, 0)
    pixels, mask = torch.tensor(rows.inputs), torch.tensor(rows.mask)
    seen: list[torch.Tensor] = []
    handle = model.module.get_submodule("classifier").register_forward_hook(
        lambda _module, _x, output: output.register_hook(seen.append) and None
    )
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(400):
            backward(model, pixels, mask, generator)
    handle.remove()
    with torch.no_grad():
        p = model.module(pixel_values=pixels).logits.softmax(-1)
    drawn = torch.stack(seen)
    torch.testing.assert_close(drawn.mean(0), torch.zeros_like(p), atol=0.12, rtol=0)
    torch.testing.assert_close(drawn.square().mean(0), p * (1 - p), atol=0.05, rtol=0)
    assert pixels.grad is None


@pytest.mark.parametrize("name", [IMAGE_PIVOT, "dinov2"])
def test_healing_sees_images_as_they_are(tiny_models: Models, name: str) -> None:
    model = tiny_models[name]
    rows = random_rows(model, 5, 0)
    parts = pieces(model, [rows], 60)
    assert [piece.tokens for piece in parts] == [PATCHES + 1] * 5
    assert [mask.shape for _, mask in batches(parts, 60)] == [(2, 26), (2, 26), (1, 26)]
    assert mean_distillation_loss(model, {}, parts, 60) == 0
    site = find_sites(model)[0].name
    half: FactorSet = {site: product(weight_of(model, site), 24)}
    before, increase = all_answers(model, rows), loss_increase(model, rows)
    with multiplied(model.module, half):
        expected = increase()
    assert expected > 0
    assert mean_distillation_loss(model, half, parts, 60) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(all_answers(model, rows), before)


# --- the bundle ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    model: LoadedModel
    report: Report
    folder: Path


@pytest.fixture(
    scope="module",
    params=[
        (IMAGE_PIVOT, "float32"),
        pytest.param((IMAGE_PIVOT, "int8"), marks=pytest.mark.breadth),
        pytest.param(("dinov2", "float16"), marks=pytest.mark.breadth),
        pytest.param(("dinov2", "float32"), marks=pytest.mark.breadth),
        pytest.param(("swin", "float32"), marks=pytest.mark.breadth),
        pytest.param(("resnet", "float16"), marks=pytest.mark.breadth),
    ],
    ids="-".join,
)
def exported(
    request: pytest.FixtureRequest,
    tiny_models: Models,
    photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    name, precision = request.param
    model = tiny_models[name]
    aim = {"keep": 0.8} if precision.startswith("float") else {"keep": None}
    settings = quick(model, photos, precision=precision, with_tests=True, **aim)
    folder = tmp_path_factory.mktemp("images") / "bundle"
    cache = session_cache(tmp_path_factory)
    report = pipeline.export(settings, load_profile("generic-cpu"), folder, Run(cache, Recorder()))
    return Exported(model, report, folder)


def test_a_bundle_answers_like_torch_and_is_judged_and_timed(exported: Exported) -> None:
    report, model = exported.report, exported.model
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert report.validation.parity.padded_max_abs_error < 1e-3
    assert report.validation.gate is not None
    metric = "mean_cosine" if model.task == "feature-extraction" else "top1_agreement"
    assert report.validation.gate.metric == metric
    assert report.validation.metrics[0].samples == 10  # a quarter of the photos
    assert report.comparison is not None
    assert model.image is not None
    tokens = model.image.tokens
    phases = [(each.key, each.tokens) for each in report.comparison.bundle.phases]
    assert phases == [(f"forward {tokens}", tokens), (f"forward 8x{tokens}", tokens)]
    assert report.budget.context_tokens == tokens
    assert report.budget.cache_bytes == 0


def test_it_passes_its_own_tests(exported: Exported) -> None:
    (found,) = run_bundle_tests([exported.folder]).values()
    validation = exported.report.validation
    assert validation is not None
    assert found.pop("test_the_bundle_passed_its_accuracy_gate") == validation.passed
    assert found
    assert all(found.values()), found


def test_the_manifest_tells_how_images_are_prepared(exported: Exported) -> None:
    manifest = read_bundle(exported.folder, verify=True).manifest
    assert manifest.image == exported.model.image
    assert manifest.image is not None
    tokens = manifest.image.tokens
    assert manifest.context_tokens == tokens


def test_the_example_of_the_card_answers_like_the_bundle(exported: Exported, photos: Path) -> None:
    paths = listed(list_images(photos))[:3]
    names = [str(path) for path in paths]
    runner = ImageEncoderRunner.open(read_bundle(exported.folder), Execution(threads=1))
    card = (exported.folder / "README.md").read_text()
    if exported.model.task == "feature-extraction":
        assert "embed_image.py" in card
        embed = runpy.run_path(str(SNIPPETS / "embed_image.py"))["embed"]
        expected = runner.embed(paths)
        np.testing.assert_allclose(embed(exported.folder, names), expected, atol=2e-3)
        return
    assert "classify_image.py" in card
    classify = runpy.run_path(str(SNIPPETS / "classify_image.py"))["classify"]
    labels = json.loads((exported.folder / "config.json").read_text())["id2label"]
    logits = runner.decide(paths).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for found, expected in zip(classify(exported.folder, names), chances, strict=True):
        order = expected.argsort()[::-1][:3]
        assert [label for label, _ in found] == [labels[str(each)] for each in order]
        np.testing.assert_allclose([chance for _, chance in found], expected[order], atol=1e-4)


def test_images_have_to_be_given_to_validate(exported: Exported, photos: Path) -> None:
    bundle = read_bundle(exported.folder)
    with pytest.raises(InputError, match=r"none are given.*--data"):
        accuracy(bundle, bundle)
    found = {metric.name: metric for metric in accuracy(bundle, bundle, photos)}
    metric = "mean_cosine" if exported.model.task == "feature-extraction" else "top1_agreement"
    assert found[metric].value == pytest.approx(1)
    assert found[metric].samples == 40


def test_a_graph_of_texts_is_no_image_model(
    tiny_models: Models, tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = session_cache(tmp_path_factory)
    text = pipeline.dense_bundle(quick_settings(tiny_encoder.folder), Run(cache, Recorder()))
    image = tiny_models["vit"].image
    assert image is not None
    with pytest.raises(InputError, match=r"its inputs are .*input_ids.*Expected pixel_values"):
        ImageEncoderRunner(open_session(text.model_path, Execution(threads=1)), image)
