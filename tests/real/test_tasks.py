"""A classifier on a real encoder: its head is trained here, its labels are those of real texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
import transformers

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.data.text import split_sentences
from edgelr.device.profile import load_profile
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from tests.helpers.run_exports import Recorder
from tests.real.test_decoder import model_path

CHAPTERS = ("typesseq", "specialnames", "formatstrings", "import", "debugger", "compound")
TRAINED = 40  # sentences of each chapter; as many others are judged

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Exported:
    report: Report
    original: TextEncoderRunner
    bundle: TextEncoderRunner
    texts: list[str]
    labels: np.ndarray


def sentences() -> tuple[list[list[str]], list[list[str]]]:
    """Sentences of every chapter: those that train the head, and others."""
    found = [split_sentences(topics[chapter], 2 * TRAINED) for chapter in CHAPTERS]
    return [each[::2] for each in found], [each[1::2] for each in found]


def write_classifier(folder: Path, trained: list[list[str]]) -> None:
    """Put a head on MiniLM: the first token's hidden state, and a logistic regression of it."""
    source = model_path("minilm")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(CHAPTERS), id2label=dict(enumerate(CHAPTERS)), use_safetensors=True
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    texts = [text for chapter in trained for text in chapter]
    labels = torch.tensor([label for label, chapter in enumerate(trained) for _ in chapter])
    with torch.no_grad():
        model.bert.pooler.dense.weight.copy_(torch.eye(model.config.hidden_size))
        model.bert.pooler.dense.bias.zero_()
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pooled = model.bert(**batch).pooler_output
    optimizer = torch.optim.LBFGS(model.classifier.parameters(), max_iter=50)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = 1e-3 * model.classifier.weight.square().sum()
        found = torch.nn.functional.cross_entropy(model.classifier(pooled), labels) + penalty
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("classifier")
    trained, judged = sentences()
    write_classifier(folder / "model", trained)
    settings = make_settings(
        model=str(folder / "model"), profile="generic-cpu", calibration_tokens=8192,
        precision="float32", rivals=False,
    )  # fmt: skip
    cache = Cache(folder / "cache")
    profile, out = load_profile("generic-cpu"), folder / "bundle"
    report = pipeline.export(settings, profile, out, Run(cache, Recorder()))
    dense = pipeline.dense_bundle(settings, Run(cache, Recorder()))
    return Exported(
        report,
        TextEncoderRunner.open(dense),
        TextEncoderRunner.open(read_bundle(out)),
        [text for chapter in judged for text in chapter],
        np.repeat(np.arange(len(CHAPTERS)), [len(chapter) for chapter in judged]),
    )


def test_a_classifier_answers_like_torch(exported: Exported) -> None:
    validation = exported.report.validation
    assert exported.report.task == "text-classification"
    assert validation is not None
    assert validation.parity is not None
    assert validation.parity.passed
    assert validation.gate is not None
    assert validation.gate.metric == "top1_agreement"
    assert exported.report.plan.kept < 0.98  # few labels may change to be sure of 2 %
    assert validation.gate.passed, validation.gate


def test_a_classifier_keeps_its_accuracy(exported: Exported) -> None:
    """On true labels of sentences that neither the head nor the calibration has seen as such."""
    before = exported.original.decide(exported.texts).argmax(-1)
    after = exported.bundle.decide(exported.texts).argmax(-1)
    accuracies = [(labels == exported.labels).mean() for labels in (before, after)]
    assert accuracies[0] > 0.6  # of six: it has learned something
    assert abs(accuracies[1] - accuracies[0]) <= (before != after).mean() <= 0.04
    print(f"accuracy {accuracies[0]:.3f} -> {accuracies[1]:.3f}")
