"""Files beside the graph: all that an app needs, and nothing that belongs to the original alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelr.graph.companions import GENAI, copy_companions, write_genai_config

KEPT = (
    "1_Pooling/config.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.txt",
)
LEFT = ("README.md", "model.safetensors", "modeling_mine.py", "onnx/model.onnx")


def test_tokenizer_and_configuration_are_copied_and_weights_are_not(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for name in (*KEPT, *LEFT):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    copy_companions(source, out)
    found = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.*")
             if path.is_file()}  # fmt: skip
    assert found == {name: name for name in KEPT}


def built(folder: Path) -> Path:
    """What the builder of decoders leaves."""
    folder.mkdir()
    decoder = {"filename": "model.onnx", "head_size": 64, "session_options": {"log_id": "genai"}}
    config = {
        "model": {"context_length": 8192, "decoder": decoder, "type": "llama"},
        "search": {"max_length": 8192, "do_sample": True},
    }
    (folder / GENAI).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("provider", "options"), [("cpu", []), ("cuda", [{"cuda": {}}])])
@pytest.mark.parametrize(("asked", "longest"), [(512, 512), (10_000, 8192)])
def test_genai_finds_the_graph_and_reserves_no_longer_a_cache_than_was_planned(
    tmp_path: Path, provider: str, options: list[object], asked: int, longest: int
) -> None:
    traced = built(tmp_path / "traced")
    write_genai_config(traced, tmp_path, "onnx/model.onnx", provider, asked)
    before, found = (json.loads((each / GENAI).read_text()) for each in (traced, tmp_path))
    assert found["search"] == {"max_length": longest, "do_sample": True}
    decoder = found["model"]["decoder"]
    assert decoder["filename"] == "onnx/model.onnx"
    assert decoder["session_options"].pop("provider_options") == options
    assert not decoder["session_options"].pop("enable_mem_pattern")
    decoder["filename"] = before["model"]["decoder"]["filename"]
    assert found["model"] == before["model"]  # all else is the builder's


def test_what_was_traced_has_nothing_for_genai(tmp_path: Path) -> None:
    write_genai_config(tmp_path, tmp_path, "model.onnx", "cpu", 512)
    assert not list(tmp_path.iterdir())
