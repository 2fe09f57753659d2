"""A real decoder from an installed package, through the command line, as its users run it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from tokenizers import Tokenizer

from edgelr.core.report import Report
from edgelr.data.text import read_text
from edgelr.report.schema import from_json
from edgelr.report.usage import snippet
from tests.helpers.paths import ROOT

EVALUATED = 16384  # characters, of which one half makes a chunk of 1,024 tokens
PROMPTS = ("The capital of France is", "Photosynthesis is the process by which", "In 1905, Albert")

pytestmark = pytest.mark.real

KEPT = 0.9  # of SmolLM2


def model_path(name: str) -> str:
    models = runpy.run_path(str(ROOT / "benchmarks" / "models.py"))
    return str(models["model_path"](name))


def edgelr(cache: Path, *arguments: str) -> None:
    environment = os.environ | {"EDGELR_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "edgelr", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def report_of(folder: Path) -> Report:
    (path,) = (folder / "reports").glob("*.json")
    return from_json(path.read_text())


def load_snippet(name: str, folder: Path) -> dict[str, object]:
    """Run an example of the model card as a user would save it."""
    path = folder / name
    path.write_text(snippet(name))
    return runpy.run_path(str(path))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    out, text = folder / "bundle", folder / "text.txt"
    # Few tokens: what is tested here is that everything holds together, not how good it is.
    text.write_text(read_text(None)[:EVALUATED], encoding="utf-8")
    options = ["--profile", "generic-cpu", "--keep", str(KEPT), "--out", str(out)]
    options += ["--recipe", "svd-llm"]  # one pass and one decomposition of each linear
    options += ["--calibration-tokens", "2048", "--calibration-length", "128"]
    options += ["--evaluation", str(text), "--no-rivals"]
    try:
        edgelr(cache, "export", model_path("smollm2"), *options)
    except AssertionError:
        if not (out / "edgelr" / "manifest.json").exists():
            raise  # only the accuracy gate may fail, with so few tokens
    return out


def test_smollm2_answers_like_torch(smollm2: Path) -> None:
    validation = report_of(smollm2).validation
    assert validation is not None
    parity = validation.parity
    assert parity is not None
    assert parity.max_abs_error <= 1e-3
    assert parity.padded_max_abs_error <= 1e-3
    assert (parity.greedy_prompts, parity.greedy_tokens) == (5, 64)
    assert parity.greedy_identical == 5


def test_smollm2_is_one_graph_with_fused_attention_and_a_single_table(smollm2: Path) -> None:
    model = onnx.load(smollm2 / "onnx" / "model.onnx", load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GroupQueryAttention") == 30
    tables = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [49152, 576]]
    assert len({str(tensor.external_data) for tensor in tables}) == 1
    assert not any(list(tensor.dims) == [576, 49152] for tensor in model.graph.initializer)
    onnx.checker.check_model(str(smollm2 / "onnx" / "model.onnx"), full_check=True)


def test_smollm2_runs_with_onnxruntime_alone_and_in_genai_with_the_same_tokens(
    smollm2: Path, tmp_path: Path
) -> None:
    import onnxruntime_genai as og

    plain = load_snippet("generate.py", tmp_path)["generate"]
    genai = load_snippet("generate_genai.py", tmp_path)["generate"]
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    model = og.Model(str(smollm2))
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        assert plain(smollm2, ids, 64) == genai(model, ids, 64)  # type: ignore[operator]


def test_smollm2_keeps_what_was_asked_for_and_is_smaller_on_disk(smollm2: Path) -> None:
    report = report_of(smollm2)
    assert KEPT - 0.02 <= report.plan.kept <= KEPT  # one share for all ranks
    removed = report.dense_file_bytes - report.bundle_file_bytes
    assert removed == pytest.approx((1 - report.plan.kept) * report.plan.dense_bytes, rel=0.05)
