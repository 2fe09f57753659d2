"""Embedders of every pooling, encoders and decoders: the bundle's vectors are the model's own."""

from __future__ import annotations

import json
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.load import load
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import SENTENCES, write_tiny
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import Recorder, quick_settings

pytestmark = pytest.mark.whole

FLAGS = ("cls_token", "mean_tokens", "max_tokens", "weightedmean_tokens", "lasttoken")
PROMPT = "Instruct: find what answers. Query: "


def embedder(folder: Path, family: str, flag: str) -> Path:
    """Write a folder as sentence-transformers does, around the weights of a family."""
    write_tiny(folder, family)
    kind = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"{kind}{name}"} for path, name in modules])
    )
    (folder / "1_Pooling").mkdir()
    told = {f"pooling_mode_{each}": each == flag for each in FLAGS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    prompts = {"prompts": {"query": PROMPT}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def expected(folder: Path, flag: str, unit: bool = True) -> np.ndarray:
    """Embed sentences by transformers, one by one."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    vectors = []
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer.backend_tokenizer.encode(sentence).ids[:72]])
        with torch.no_grad():
            (hidden,) = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        places = torch.arange(1, len(hidden) + 1)[:, None]
        vector = {
            "cls_token": hidden[0],
            "mean_tokens": hidden.mean(0),
            "max_tokens": hidden.amax(0),
            "weightedmean_tokens": (hidden * places).sum(0) / places.sum(),
            "lasttoken": hidden[-1],
        }[flag]
        vectors.append(vector / vector.norm() if unit else vector)
    return torch.stack(vectors).numpy()


def with_layers(folder: Path, *sizes: int) -> list[torch.nn.Module]:
    """Put Dense layers of these widths behind the pooling; the first has tanh, others nothing."""
    torch.manual_seed(1)
    modules, layers = json.loads((folder / "modules.json").read_text()), []
    for index, (wide, narrow) in enumerate(pairwise((48, *sizes))):
        place = folder / f"{index + 2}_Dense"
        place.mkdir(exist_ok=True)
        kind = "linear.Identity" if index else "activation.Tanh"
        told = {"in_features": wide, "out_features": narrow, "bias": not index}
        told |= {"activation_function": f"torch.nn.modules.{kind}"}
        (place / "config.json").write_text(json.dumps(told))
        linear = torch.nn.Linear(wide, narrow, bias=not index)
        tensors = {f"linear.{name}": each for name, each in linear.state_dict().items()}
        save_file(tensors, place / "model.safetensors")
        module = {"path": place.name, "type": "sentence_transformers.models.Dense"}
        modules.insert(index + 2, module)
        layers += [linear, torch.nn.Identity() if index else torch.nn.Tanh()]
    (folder / "modules.json").write_text(json.dumps(modules))
    return layers


def layered(folder: Path, flag: str, layers: list[torch.nn.Module]) -> np.ndarray:
    """Embed by transformers, and let the layers follow before the length becomes 1."""
    pooled = torch.tensor(expected(folder, flag, unit=False))
    with torch.no_grad():
        found = torch.nn.Sequential(*layers)(pooled)
    return torch.nn.functional.normalize(found, dim=-1).numpy()


def vectors_of(bundle: ExportBundle) -> np.ndarray:
    return TextEncoderRunner.open(bundle).embed(SENTENCES)


@pytest.mark.parametrize(
    ("family", "flag"),
    [
        *(("bert", flag) for flag in FLAGS),
        ("qwen3", "mean_tokens"),
        ("qwen3", "lasttoken"),
        *(  # pooled by the same lines as the vectors of an encoder
            pytest.param("qwen3", flag, marks=pytest.mark.slow)
            for flag in ("cls_token", "max_tokens", "weightedmean_tokens")
        ),
    ],
)
def test_vectors_are_those_of_the_model(tmp_path: Path, family: str, flag: str) -> None:
    folder = embedder(tmp_path / "model", family, flag)
    model = load(str(folder), Cache(tmp_path / "cache"))
    dense = dense_export(model, Run(Cache(tmp_path / "cache")))
    np.testing.assert_allclose(vectors_of(dense.bundle), expected(folder, flag), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "flag", "sizes"),
    [
        ("bert", "mean_tokens", (24,)),
        ("distilbert", "cls_token", (24, 36)),
        ("qwen3", "lasttoken", (24,)),
        ("bert", "max_tokens", (24,)),
    ],
)
def test_layers_behind_the_pooling_are_in_the_graph(
    tmp_path: Path, family: str, flag: str, sizes: tuple[int, ...]
) -> None:
    folder = embedder(tmp_path / "model", family, flag)
    layers = with_layers(folder, *sizes)
    model = load(str(folder), Cache(tmp_path / "cache"))
    dense = dense_export(model, Run(Cache(tmp_path / "cache")))
    found = vectors_of(dense.bundle)
    assert found.shape == (len(SENTENCES), sizes[-1])
    np.testing.assert_allclose(found, layered(folder, flag, layers), atol=1e-4)
    first = folder / "2_Dense" / "model.safetensors"  # other weights are another model
    save_file({name: -each for name, each in load_file(first).items()}, first)
    again = load(str(folder), Cache(tmp_path / "cache"))
    assert again.digest != model.digest


def test_an_embedder_with_layers_becomes_a_bundle(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", "bert", "mean_tokens")
    layers = with_layers(folder, 24)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in folder.glob("*"):
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = inner.name
    (folder / "modules.json").write_text(json.dumps(modules))
    run = Run(Cache(tmp_path / "cache"), Recorder())
    settings = quick_settings(folder, keep=0.95, with_tests=True)
    report = pipeline.export(settings, load_profile("generic-cpu"), tmp_path / "out", run)
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert any(PROMPT in note for note in report.notes)
    bundle = read_bundle(tmp_path / "out", verify=True)
    assert bundle.manifest.pooling is None  # nobody has to pool
    assert not list(bundle.folder.rglob("modules.json"))
    cosines = (vectors_of(bundle) * layered(inner, "mean_tokens", layers)).sum(-1)
    assert cosines.min() > 0.8
    embed = runpy.run_path(str(SNIPPETS / "embed.py"))["embed"]
    np.testing.assert_allclose(embed(bundle.folder, SENTENCES), vectors_of(bundle), atol=1e-5)
    (found,) = run_bundle_tests([bundle.folder]).values()
    gate = "test_the_bundle_passed_its_accuracy_gate"  # a tiny model's may fail
    assert all(passed for name, passed in found.items() if name != gate), found


def test_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", "bert", "mean_tokens")
    with_layers(folder, 24)
    save_file({"linear.weight": torch.ones(24, 40)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(InputError, match="reads vectors of 40 numbers, and is given 48"):
        load(str(folder), Cache(tmp_path / "cache"))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_decoder_that_embeds_is_exported_as_what_it_is(tmp_path: Path, precision: str) -> None:
    folder = embedder(tmp_path / "model", "qwen3", "lasttoken")
    keep = {"float32": 0.9, "int8": 0.4}[precision]
    settings = quick_settings(folder, precision=precision, keep=keep)
    run = Run(Cache(tmp_path / "cache"), Recorder())
    report = pipeline.export(settings, load_profile("generic-cpu"), tmp_path / "out", run)
    assert report.task == "feature-extraction"
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    bundle = read_bundle(tmp_path / "out", verify=True)
    assert bundle.manifest.pooling == "last_token"
    cosines = (vectors_of(bundle) * expected(folder, "lasttoken")).sum(-1)
    assert cosines.min() > 0.9
    assert any(PROMPT in note for note in report.notes)
    assert json.loads((tmp_path / "out/config_sentence_transformers.json").read_text())["prompts"]
