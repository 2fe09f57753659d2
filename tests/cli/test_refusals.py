"""Slips, and models that edgelr does not take: refused in three seconds, with what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image
from tokenizers import Tokenizer

from tests.conftest import write_tiny
from tests.helpers.foreign_graphs import mlp
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.whole

SECONDS = 3.0  # of a processor's work: others share the machine
CALIBRATE, EVALUATE = "--calibration", "--evaluation"
HIDE = """
import sys
sys.modules.update(dict.fromkeys(["torch"]))  # what is None there cannot be imported
"""

# Words behind `edgelr export`, the exit code, and what is said.
SLIPS: dict[str, tuple[list[str], int, str]] = {
    "size without a unit": (["bert", "--max-size", "60"], 2, "Write 60MB"),
    "loss in percent": (["bert", "--max-drop", "5"], 2, "did you mean 0.05"),
    "share in percent": (["bert", "--keep", "80"], 2, "did you mean 0.8"),
    "two aims": (["bert", "--keep", "0.5", "--max-drop", "1%"], 2, "expected at most one"),
    "unknown precision": (["bert", "--precision", "int3"], 2, "Did you mean int8 or int4"),
    "unknown profile": (["bert", "--profile", "jetsn"], 2, "Did you mean jetson"),
    "unknown recipe": (["bert", "--recipe", "svdllm"], 2, "Did you mean svd-llm"),
    "missing model": (["./nowhere"], 2, "Check the path"),
    "missing text": (["bert", CALIBRATE, "no.txt"], 2, "Name another file"),
    "one file for both": (
        ["bert", CALIBRATE, "lines.txt", EVALUATE, "lines.txt"],
        2,
        "leave --evaluation away",
    ),
    "images for a model of texts": (["bert", CALIBRATE, "images"], 2, "expected a .txt or .jsonl"),
    "a text for a model of images": (["vit", CALIBRATE, "lines.txt"], 2, "Mend the list"),
    "rows beyond the positions": (["bert", "--calibration-length", "4096"], 2, "a smaller number"),
    "context beyond the positions": (["llama", "--context-tokens", "99999"], 2, "smaller number"),
    "another family's task": (["bert", "--task", "text-generation"], 2, "leave --task away"),
    "less than the smallest plan": (["bert", "--max-size", "500B"], 4, "a larger --max-size"),
    "a full folder": (["bert", "--out", "images"], 2, "Name another one with --out"),
    "no plan": (["bert", "--plan", "numbers.json"], 2, "a file that 'edgelr plan' wrote"),
    "unknown type": (["unknown"], 2, "A family is one small file"),
    "unknown head": (["choices"], 2, "Give --task feature-extraction"),
    "head of numbers": (["numbers"], 2, "Give --task feature-extraction"),
    "unknown module": (["modules"], 2, "Delete modules.json"),
    "unknown quantization": (["aqlm"], 2, "Give the original model"),
    "pickled weights": (["pickled"], 2, "convert it once where you trust it"),
    "half of the weights": (["cut"], 2, "download the model again"),
    "broken configuration": (["broken"], 2, "Copy or download it again"),
    "no tokenizer": (["mute"], 2, "Save one there"),
    "token beyond the table": (["token"], 2, "resize_token_embeddings"),
    "unknown GGUF": (["odd.gguf"], 2, "'oddarch', which edgelr does not export"),
    "no GGUF": (["images.gguf"], 2, "Copy the file again"),
    "no graph": (["noise.onnx"], 2, "Copy it again"),
    "inputs of another name": (["net.onnx", CALIBRATE, "other.npz"], 2, "Save one array for each"),
    "inputs of another shape": (["net.onnx", CALIBRATE, "shape.npz"], 2, "Expected float32"),
    "an option of texts": (["net.onnx", "--calibration-length", "8"], 2, "Leave the others away"),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models and data, and what is wrong with copies of them."""
    folder = tmp_path_factory.mktemp("slips")
    for name in ("bert", "llama", "vit"):
        write_tiny(folder / name, name)
    mlp(folder / "net.onnx")
    (folder / "images").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "images" / "one.png")
    lines = "\n".join(f"Line {index} is about a boat on the river." for index in range(300))
    for name, text in {"lines.txt": lines, "numbers.json": '{"sites": 3}'}.items():
        (folder / name).write_text(text)
    for name in ("noise.onnx", "images.gguf"):
        (folder / name).write_bytes(b"neither of the two")
    np.savez(folder / "other.npz", other=np.zeros((8, 3), np.float32))
    np.savez(folder / "shape.npz", x=np.zeros((8, 1, 3), np.float32))
    _damaged_models(folder)
    writer = gguf.GGUFWriter(folder / "odd.gguf", "oddarch")
    writer.add_tensor("weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def _damaged_models(folder: Path) -> None:
    labels = {"architectures": ["BertForSequenceClassification"], "problem_type": "regression"}
    copied(folder, "unknown", model_type="nonesuch")
    copied(folder, "choices", architectures=["BertForMultipleChoice"])
    copied(folder, "numbers", **labels)
    copied(folder, "aqlm", quantization_config={"quant_method": "aqlm"})
    kinds = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "CNN")]
    (copied(folder, "modules") / "modules.json").write_text(json.dumps(kinds))
    (copied(folder, "broken") / "config.json").write_text('{"model_type": ')
    weights = copied(folder, "pickled") / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    weights = copied(folder, "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    for path in copied(folder, "mute").glob("tokenizer*"):
        path.unlink()
    path = copied(folder, "token") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    rows = json.loads((folder / "bert" / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<{each}>" for each in range(rows + 1 - tokenizer.get_vocab_size())])
    tokenizer.save(str(path))


def copied(folder: Path, name: str, **changes: Any) -> Path:
    """Copy the encoder, and change its configuration."""
    shutil.copytree(folder / "bert", folder / name)
    path = folder / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder / name


def refused(here: Path, words: list[str], **variables: str) -> tuple[int, str, float]:
    """Run a command; return its exit code, its last message, and its seconds of work."""
    names = {"PYTHONPATH": str(ROOT), "EDGELR_CACHE": str(here / "cache"), **variables}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "edgelr", *words],
        cwd=here, env=os.environ | names, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Traceback" not in done.stderr
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, told, worked


@pytest.mark.parametrize("slip", SLIPS)
def test_what_cannot_work_is_refused_at_once_with_what_to_do(here: Path, slip: str) -> None:
    words, code, told = SLIPS[slip]
    profile = [] if "--profile" in words else ["--profile", "generic-cpu"]
    out = [] if "--out" in words else ["--out", "out"]
    found, message, worked = refused(here, ["export", *words, *profile, *out])
    assert (found, told in message) == (code, True), message
    assert worked < SECONDS
    assert not (here / "out").exists()


def test_a_provider_that_is_not_there_is_refused_at_once(here: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime offers CUDA")
    words = ["export", "bert", "--profile", "generic-cpu", "--provider", "cuda"]
    code, message, worked = refused(here, words)
    assert (code, "pass --provider cpu" in message, worked < SECONDS) == (5, True, True)


def test_a_missing_package_is_told_at_once(here: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = ["export", "bert", "--profile", "generic-cpu"]
    code, message, worked = refused(here, words, PYTHONPATH=paths)
    assert (code, "pip install 'edgelr[cpu]'" in message, worked < SECONDS) == (6, True, True)
