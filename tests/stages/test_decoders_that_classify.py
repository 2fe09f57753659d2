"""Decoders with a head that reads the last token: labels and scores are those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.load import load
from edgelr.model.losses import answers, backward
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.runtime.runners.text_pair import TextPairRunner
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import SENTENCES, MakeModel, tiny_texts, write_tiny
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.run_exports import Recorder, quick_settings

pytestmark = pytest.mark.whole

PAD = 3  # and not 0: what pads has to be read from the configuration


def expected(folder: Path, first: list[str], second: list[str] | None = None) -> np.ndarray:
    """Answer by transformers, as one batch that is padded on the right."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="right")
    options = {"padding": True, "truncation": True, "max_length": 128, "return_tensors": "pt"}
    given = tokenizer(first, second, return_token_type_ids=False, **options)
    assert model.config.pad_token_id == tokenizer.pad_token_id == PAD
    with torch.no_grad():
        found: np.ndarray = model(**given).logits.numpy()
    return found


def written(folder: Path, family: str, task: str) -> Path:
    """Write a decoder whose padding has another id than 0."""
    write_tiny(folder, family, task, pad_token_id=PAD)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, pad_token="<unk>")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_labels_are_those_of_the_last_token_that_is_no_padding(tmp_path: Path, family: str) -> None:
    folder = written(tmp_path / "model", family, "text-classification")
    model = load(str(folder), Cache(tmp_path / "cache"))
    assert model.task == "text-classification"
    dense = dense_export(model, Run(Cache(tmp_path / "cache")))
    found = TextEncoderRunner.open(dense.bundle).decide(SENTENCES)
    np.testing.assert_allclose(found, expected(folder, list(SENTENCES)), atol=1e-4)


def test_a_decoder_of_one_label_scores_pairs(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "qwen3", "text-ranking")
    model = load(str(folder), Cache(tmp_path / "cache"))
    assert model.task == "text-ranking"
    dense = dense_export(model, Run(Cache(tmp_path / "cache")))
    pairs = list(zip(SENTENCES, reversed(SENTENCES), strict=True))
    wanted = expected(folder, *map(list, zip(*pairs, strict=True)))[:, 0]
    np.testing.assert_allclose(TextPairRunner.open(dense.bundle).score(pairs), wanted, atol=1e-4)


def test_a_head_without_padding_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "llama", "text-classification", pad_token_id=None)
    with pytest.raises(InputError, match=r"names no pad_token_id.*Add pad_token_id to config"):
        load(str(folder), Cache(tmp_path / "cache"))


def test_what_pads_a_batch_gets_no_gradient(make_model: MakeModel) -> None:
    """Padding is told by its id: a text beside a longer one answers and learns as if alone."""
    model = make_model("qwen2", "text-classification")
    texts = tiny_texts(model)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    lengths = mask.sum(1).tolist()
    with torch.no_grad():
        alone = [answers(model, row[None, :length], torch.ones(1, length, dtype=torch.long))
                 for row, length in zip(ids, lengths, strict=True)]  # fmt: skip
        together = answers(model, ids, mask)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    seen: list[torch.Tensor] = []

    def watch(module: object, inputs: object, output: torch.Tensor) -> None:
        output.register_hook(seen.append)

    linear = model.module.get_submodule("model.layers.0.mlp.down_proj")
    handle = linear.register_forward_hook(watch)
    with torch.enable_grad():
        backward(model, ids, mask, torch.Generator().manual_seed(0))
    handle.remove()
    assert seen[0][mask == 1].any()
    assert not seen[0][mask == 0].any()


def test_a_decoder_that_classifies_becomes_a_bundle(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "qwen2", "text-classification")
    settings = quick_settings(folder, keep=0.9, with_tests=True)
    run = Run(Cache(tmp_path / "cache"), Recorder())
    report = pipeline.export(settings, load_profile("generic-cpu"), tmp_path / "out", run)
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    bundle = read_bundle(tmp_path / "out", verify=True)
    assert bundle.manifest.modality == "text_encoder"
    assert not bundle.manifest.cache_in_place
    (found,) = run_bundle_tests([bundle.folder]).values()
    gate = "test_the_bundle_passed_its_accuracy_gate"  # a tiny model's may fail
    assert all(passed for name, passed in found.items() if name != gate), found
