"""The examples run as they are, on tiny models, in processes of their own."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from onnx import TensorProto

from edgelr.core.run import Run
from edgelr.model.loaded import LoadedModel
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import SENTENCES
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import QUICK, Recorder, session_cache
from tests.project.test_docs import parsed
from tests.project.test_snippets import counting_decoder, write_bundle

pytestmark = pytest.mark.whole

EXAMPLES = ROOT / "examples"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }} {% endfor %}<assistant>"


def run(name: str, *words: object, said: str = "") -> str:
    """Run an example without edgelr on its path; return what it prints."""
    command = [sys.executable, "-I", str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def decoder(tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_export(
        tiny_decoder, Run(session_cache(tmp_path_factory), Recorder())
    ).bundle.folder


@pytest.fixture(scope="module")
def encoder(tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_export(
        tiny_encoder, Run(session_cache(tmp_path_factory), Recorder())
    ).bundle.folder


def test_a_chat_answers_every_line_and_ends_with_an_empty_one(decoder: Path) -> None:
    shown = run("chat.py", decoder, 6, said="The river runs\nto the sea\n\n")
    answers = shown.split("> ")[1:]
    assert len(answers) == 3
    assert all(answers[:2])


def test_both_chats_give_the_same_tokens(decoder: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    plain = runpy.run_path(str(EXAMPLES / "chat.py"))["Model"](decoder)
    other = runpy.run_path(str(EXAMPLES / "chat_genai.py"))
    model, ends = genai.Model(str(decoder)), other["end_tokens"](decoder)
    assert ends == plain.ends
    for ids in ([5, 9, 31], [5, 9, 31, 40, 41, 42], [60, 7]):
        assert list(plain.answer(ids, 8)) == list(other["answer"](model, ids, 8, ends))
    assert len(run("chat_genai.py", decoder, 6, said="The river\nruns\n\n").split("> ")) == 4


def test_a_chat_reads_only_what_is_new(tmp_path: Path) -> None:
    write_bundle(tmp_path, counting_decoder(TensorProto.FLOAT), {"head_dim": 5}, "mean")
    model = runpy.run_path(str(EXAMPLES / "chat.py"))["Model"](tmp_path)
    first = list(model.answer([1, 2, 3], 3))
    assert first == [13, 14, 15]  # 10 + tokens in the cache
    assert list(model.answer([1, 2, 3, *first, 1], 2)) == [17, 18]
    assert len(list(model.answer([1] * 14, 100))) == 2, "the cache has room for 16"


def test_a_chat_forgets_what_is_no_longer_part_of_it(decoder: Path) -> None:
    make = runpy.run_path(str(EXAMPLES / "chat.py"))["Model"]
    used, fresh = make(decoder), make(decoder)
    list(used.answer([5, 9, 31, 40, 41], 8))
    assert list(used.answer([5, 9, 77, 12], 8)) == list(fresh.answer([5, 9, 77, 12], 8))


def test_a_conversation_is_written_by_the_template_of_the_model(tmp_path: Path) -> None:
    render = runpy.run_path(str(EXAMPLES / "chat.py"))["render"]
    messages = [{"role": "user", "content": "Hello"}]
    assert render(tmp_path, messages) == "Hello\n"
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    assert render(tmp_path, messages) == "<user>Hello <assistant>"


def test_a_search_finds_the_paragraph_that_is_asked_for(encoder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.md").write_text(f"{SENTENCES[0]}\n\n{SENTENCES[1]}\n")
    (notes / "b.txt").write_text(f"\n{SENTENCES[2]}\n")
    (notes / "c.bin").write_bytes(b"\xff\x00")
    lines = run("search.py", encoder, notes, SENTENCES[1], 2).splitlines()
    assert lines[0] == f"1.000  {notes / 'a.md'}:3"
    assert lines[1].strip() == SENTENCES[1]
    assert len(lines) == 4


def steps() -> dict[str, Any]:
    """Shell lines of the workflow, by the names of their steps."""
    found = yaml.safe_load((EXAMPLES / "regression.yml").read_text(encoding="utf-8"))
    return {step["name"]: step["run"] for step in found["jobs"]["bundle"]["steps"] if "run" in step}


@pytest.mark.slow
def test_the_workflow_passes_and_fails_where_it_should(
    tiny_encoder: LoadedModel, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tmp_path / "quick.yaml"
    config.write_text(yaml.safe_dump(QUICK))
    program = tmp_path / "edgelr"  # the command, with settings for a tiny model
    program.write_text(
        f'#!/bin/sh\n[ "$1" = export ] && set -- "$@" -c {config}\n'
        f'exec {sys.executable} -m edgelr "$@"\n'
    )
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parent),
        "EDGELR_CACHE": str(session_cache(tmp_path_factory).root),
        "MODEL": str(tiny_encoder.folder),
        "PROFILE": "generic-cpu",
        "MAX_SIZE": "70MB",
        "MAX_DROP": "0.5",
    }

    def step(name: str, **changes: str) -> int:
        done = subprocess.run(
            ["bash", "-e", "-c", steps()[name]], cwd=tmp_path, env={**environment, **changes},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode

    assert step("Export; exit code 3 where the gate fails") == 0
    assert step("Size") == 0
    assert step("Size", MAX_SIZE="1KB") != 0
    assert step("Answers and memory") == 0
    assert step("Answers and memory", MAX_DROP="0.0000001") == 3
    (tmp_path / "shipped").symlink_to(tmp_path / "build" / "bundle")
    assert step("What changed since the bundle that ships") == 0


def test_the_workflow_has_no_stale_option() -> None:
    lines = [
        line
        for told in steps().values()
        for line in told.splitlines()
        if line.startswith("edgelr ")
    ]
    assert len(lines) == 4
    for line in lines:
        parsed(line.replace('"$MAX_DROP"', "0.1"))
