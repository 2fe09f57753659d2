"""lm-evaluation-harness on a bundle: likelihoods are torch's, texts those of greedy search."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.decoder import DecoderRunner
from tests.conftest import SENTENCES
from tests.helpers.run_exports import PIVOTS, Recorder, quick_settings, session_cache

if TYPE_CHECKING:
    from edgelr.lm_eval import BundleLM

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
CHOICES = (" river", " small model", " table")


class Request:
    """What lm-eval hands over: only its arguments are read."""

    def __init__(self, *args: object) -> None:
        self.args = args


@pytest.fixture(scope="module")
def dense(
    tiny_models: dict[str, LoadedModel], tmp_path_factory: pytest.TempPathFactory
) -> ExportBundle:
    model, cache = tiny_models[PIVOTS[1]], session_cache(tmp_path_factory)
    return pipeline.dense_bundle(quick_settings(model.folder), Run(cache, Recorder()))


@pytest.fixture(scope="module")
def lm(dense: ExportBundle) -> BundleLM:
    reason = "lm-evaluation-harness is not installed (edgelr[lm-eval])"
    pytest.importorskip("lm_eval", reason=reason)
    from edgelr.lm_eval import BundleLM

    return BundleLM(str(dense.folder), threads=1)


def test_a_missing_harness_is_told_with_its_remedy() -> None:
    code = """
import runpy, sys
sys.modules["lm_eval"] = None
runpy.run_module("edgelr.lm_eval", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'edgelr[lm-eval]'" in done.stderr
    assert "Traceback" not in done.stderr


def torch_likelihood(model: LoadedModel, context: list[int], following: list[int]) -> float:
    ids = torch.tensor([[*context, *following]])
    with torch.no_grad():
        logits = model.module(input_ids=ids).logits[0, len(context) - 1 : -1]
    found = logits.double().log_softmax(-1)
    return float(found[range(len(following)), following].sum())


def test_likelihoods_are_those_of_torch(lm: BundleLM, tiny_models: dict[str, LoadedModel]) -> None:
    model = tiny_models[PIVOTS[1]]
    pairs = [(SENTENCES[0][:20], SENTENCES[0][20:]), ("", SENTENCES[1]), ("A board ", "with")]
    for pair, (found, greedy) in zip(
        pairs, lm.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True), strict=True
    ):
        context, following = pair
        if context:
            whole = lm.tok_encode(context.rstrip() + " " * context.endswith(" ") + following)
            start = lm.tok_encode(context.rstrip())
        else:
            start, whole = [1], [1, *lm.tok_encode(following, add_special_tokens=False)]
        expected = torch_likelihood(model, start, whole[len(start) :])
        assert found == pytest.approx(expected, abs=1e-3)
        assert not greedy


def test_a_long_text_is_summed_in_pieces(lm: BundleLM, tiny_models: dict[str, LoadedModel]) -> None:
    model = tiny_models[PIVOTS[1]]
    text = " ".join(SENTENCES * 2)
    ids = lm.tok_encode(text)
    assert len(ids) > 2 * lm.max_length
    (found,) = lm.loglikelihood_rolling([Request(text)], disable_tqdm=True)
    whole, expected = [1, *ids], 0.0
    for start in range(0, len(ids), lm.max_length):
        stop = min(start + lm.max_length, len(ids))
        first = max(0, stop - lm.max_length)  # the last piece sees a whole context
        given = whole[first : start + 1]
        expected += torch_likelihood(model, given, ids[start:stop])
    assert found == pytest.approx(expected, abs=1e-3)


def test_texts_are_greedy_and_end_where_they_are_told(lm: BundleLM, dense: ExportBundle) -> None:
    prompt = lm.tok_encode(SENTENCES[2][:30])
    tokens = DecoderRunner.open(dense, Execution(threads=1)).greedy([prompt], 12)[0]
    whole = lm.tokenizer.decode(tokens)
    request = {"until": [], "max_gen_toks": 12}
    (found,) = lm.generate_until([Request(SENTENCES[2][:30], request)], disable_tqdm=True)
    assert found == whole
    stop = whole[4:6]
    stopped = Request(SENTENCES[2][:30], {"until": [stop], "max_gen_toks": 12})
    assert lm.generate_until([stopped], disable_tqdm=True) == [whole[: whole.index(stop)]]
    sampled = Request("A", {"do_sample": True, "temperature": 0.7})
    with pytest.raises(InputError, match="do_sample=False"):
        lm.generate_until([sampled], disable_tqdm=True)


def test_the_command_runs_a_task_without_a_network(
    lm: BundleLM, dense: ExportBundle, tmp_path: Path
) -> None:
    docs = [{"text": text[:25], "choices": CHOICES, "answer": 0} for text in SENTENCES]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (tmp_path / "tiny.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    words = ["run", "--model", "edgelr", "--model_args", f"bundle={dense.folder},threads=1",
             "--tasks", "tiny_choice", "--include_path", str(tmp_path),
             "--output_path", str(tmp_path / "found.json")]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "edgelr.lm_eval", *words],
        check=True,
        capture_output=True,
        env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache"), "PATH": ""},
    )
    (path,) = tmp_path.glob("found*.json")
    (result,) = json.loads(path.read_text())["results"].values()
    right = [
        int(np.argmax([lm.loglikelihood([Request(doc["text"], choice)], True)[0][0]
                       for choice in CHOICES]) == 0)
        for doc in docs
    ]  # fmt: skip
    assert result["acc,none"] == pytest.approx(np.mean(right))
