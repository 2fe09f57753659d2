"""Embedders of every pooling, encoders and decoders: the bundle's vectors are the model's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.load import load
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import SENTENCES, write_tiny
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


def expected(folder: Path, flag: str) -> np.ndarray:
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
        vectors.append(vector / vector.norm())
    return torch.stack(vectors).numpy()


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
