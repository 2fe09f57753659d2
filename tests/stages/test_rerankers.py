"""Rerankers: pairs of texts from calibration to the card, judged by the order of their scores."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edgelr import pipeline
from edgelr.compress.heal.distillation import batches, distillation_loss, pieces
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.device.gate import make_gate
from edgelr.device.profile import load_profile
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import answers, as_tensors
from edgelr.model.losses.text_pair import tokenized
from edgelr.runtime.evaluators.ranking import compare_scores
from edgelr.runtime.open_bundle import Bundle
from edgelr.runtime.runners.text_pair import TextPairRunner
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import SENTENCES, MakeModel, write_tiny
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.fault_injection import random_head
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import RANKING, Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

PAIRS = [(query, passage) for query in SENTENCES[:3] for passage in SENTENCES]
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}


def expected(folder: Path, longest: int = 72) -> np.ndarray:
    """Score the pairs by transformers, as one padded batch."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    first, second = map(list, zip(*PAIRS, strict=True))
    given = tokenizer(
        first, second, padding=True, truncation=True, max_length=longest, return_tensors="pt",
        return_token_type_ids=getattr(model.config, "type_vocab_size", 0) > 1,
    )  # fmt: skip
    with torch.no_grad():
        found: np.ndarray = model(**given).logits[:, 0].numpy()
    return found


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_scores_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    """BERT is told which text a token is of, RoBERTa is not."""
    folder = write_tiny(tmp_path / "model", family, "text-ranking")
    model = load(str(folder), Cache(tmp_path / "cache"))
    dense = dense_export(model, Run(Cache(tmp_path / "cache")))
    runner = TextPairRunner.open(dense.bundle)
    assert ("token_type_ids" in runner.session.inputs) == (family == "bert")
    wanted = expected(folder, model.longest_text)
    np.testing.assert_allclose(runner.score(PAIRS), wanted, atol=1e-4)
    if family == "bert":
        without = [np.stack([row[0], np.zeros_like(row[0])]) for row in runner.rows(PAIRS)]
        alone = np.concatenate([runner.run_alone(row) for row in without])
        assert np.abs(alone - wanted).max() > 0.01  # the types do tell something


def test_one_label_is_a_score_and_several_are_labels(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    folder = str(write_tiny(tmp_path / "one", "bert", "text-ranking"))
    assert load(folder, cache).task == "text-ranking"
    assert load(folder, cache, task="text-classification").task == "text-classification"
    several = str(write_tiny(tmp_path / "several", "bert", "text-classification"))
    assert load(several, cache).task == "text-classification"
    with pytest.raises(InputError, match="has 5 labels; expected one score"):
        load(several, cache, task="text-ranking")


def test_scores_are_compared_over_their_deviation(make_model: MakeModel) -> None:
    """So that half the squared distance of two models is about one minus their correlation."""
    model = make_model("bert", "text-ranking")
    rows = tokenized(PAIRS, model.folder, model.module.config, 72)
    with torch.no_grad():
        found = answers(model, *as_tensors(rows.inputs, rows.mask))
    raw = torch.tensor(expected(model.folder))[:, None]
    torch.testing.assert_close(found, raw.double() / model.score_deviation, atol=1e-4, rtol=1e-4)
    assert 0.1 < float(found.std()) < 10


def test_healing_reads_the_same_pairs(make_model: MakeModel) -> None:
    """Padded to the longest of a batch, with both rows of every pair; and sees no loss at first."""
    model = make_model("bert", "text-ranking")
    rows = tokenized(PAIRS, model.folder, model.module.config, 72)
    learned = pieces(model, [rows], 256)
    (inputs, mask), *_ = batches(learned, 256)
    assert inputs.shape == (len(mask), 2, mask.shape[1])
    np.testing.assert_array_equal(inputs, rows.inputs[: len(mask), :, : mask.shape[1]])
    assert float(distillation_loss(model, {}, (inputs, mask))) == 0


def test_a_model_of_one_score_for_all_is_refused(tmp_path: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        write_tiny(tmp_path / "model", "bert", "text-ranking")
    )
    torch.nn.init.zeros_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="gives 48 pairs of texts one score"):
        load(str(tmp_path / "model"), Cache(tmp_path / "cache"))


@dataclass
class Scores:
    """A reranker whose scores are known."""

    values: np.ndarray

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return self.values[[int(query) for query, _ in pairs]]


def test_the_gate_judges_the_order_and_lets_no_constant_pass() -> None:
    generator, pairs = np.random.default_rng(0), [(str(n), "") for n in range(200)]
    original = generator.standard_normal(200) - 8  # as trained rerankers: hardly one above zero
    found = {
        "moved": 3 * original + 20,
        "noisy": original + 0.02 * generator.standard_normal(200),
        "constant": np.full(200, -8.0),
        "shuffled": generator.permutation(original),
    }
    passed = {}
    for name, values in found.items():
        metrics = compare_scores(Scores(original), Scores(values), pairs)
        passed[name] = make_gate("text-ranking", metrics, 0.03).passed
    assert passed == {"moved": True, "noisy": True, "constant": False, "shuffled": False}


# --- the bundle ----------------------------------------------------------------------------------


@dataclass
class Exported:
    model: LoadedModel
    bundle: ExportBundle
    report: Report


@pytest.fixture(scope="module")
def exported(
    tiny_models: dict[str, LoadedModel], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    model, root = tiny_models[RANKING], tmp_path_factory.mktemp("reranker")
    lines = [{"query": f"{query} {n}", "passage": p} for n in range(4) for query, p in PAIRS]
    data, judged = root / "pairs.jsonl", root / "judged.jsonl"
    for path in (data, judged):
        path.write_text("\n".join(map(json.dumps, lines)))
    settings = quick_settings(
        model.folder,
        keep=0.8,
        with_tests=True,
        calibration=(str(data),),
        evaluation=str(judged),
    )
    run = Run(session_cache(tmp_path_factory), Recorder())
    report = pipeline.export(settings, load_profile("generic-cpu"), root / "bundle", run)
    return Exported(model, read_bundle(root / "bundle", verify=True), report)


def test_a_reranker_is_judged_on_pairs_by_their_order(exported: Exported) -> None:
    validation = exported.report.validation
    assert validation is not None
    assert validation.gate is not None
    assert validation.parity is not None
    assert validation.parity.passed
    assert (exported.report.task, validation.gate.metric) == ("text-ranking", "spearman")
    assert validation.gate.limit == pytest.approx(0.97)
    assert "every second line" in validation.text
    metrics = {metric.name: metric for metric in validation.metrics}
    assert metrics["spearman"].samples == len(PAIRS) * 2
    assert metrics["spearman"].interval is not None
    assert "of correlation" in " ".join(exported.report.notes)


def test_the_example_of_the_card_sorts_like_the_bundle(exported: Exported) -> None:
    folder = exported.bundle.folder
    assert "rank.py" in (folder / "README.md").read_text()
    query, passages = SENTENCES[0], list(SENTENCES[1:])
    rank = runpy.run_path(str(SNIPPETS / "rank.py"))["rank"]
    found, ours = rank(folder, query, passages), Bundle(folder).rank(query, passages)
    raw = TextPairRunner.open(exported.bundle).score([(query, each) for each in passages])
    assert [text for _, text in found] == [passages[place] for place in np.argsort(-raw)]
    assert [text for _, text in ours] == [text for _, text in found]
    sigmoid = 1 / (1 + np.exp(-np.sort(raw.astype(float))[::-1]))
    np.testing.assert_allclose([score for score, _ in found], sigmoid, rtol=1e-4)
    np.testing.assert_allclose([score for score, _ in ours], sigmoid, rtol=1e-4)


def test_the_tests_of_a_reranker_see_another_order(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.bundle.folder, tmp_path / "changed")
    random_head(tmp_path / "changed")
    folders = [exported.bundle.folder, tmp_path / "changed"]
    whole, faulty = run_bundle_tests(folders).values()
    gate = "test_the_bundle_passed_its_accuracy_gate"  # a tiny model's may fail
    assert len(whole) == 6
    assert all(passed for name, passed in whole.items() if name != gate), whole
    wrong = {name for name, passed in faulty.items() if not passed}
    assert {"test_scores_are_those_of_the_export"} <= wrong


def test_scores_are_raw_where_the_configuration_says_so(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(exported.bundle.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sentence_transformers": IDENTITY}))
    rank = runpy.run_path(str(SNIPPETS / "rank.py"))["rank"]
    found = rank(folder, SENTENCES[0], list(SENTENCES[1:]))
    raw = TextPairRunner.open(exported.bundle).score([(SENTENCES[0], text) for _, text in found])
    np.testing.assert_allclose([score for score, _ in found], raw, atol=1e-4)
