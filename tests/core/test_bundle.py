from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgelr.core.bundle import (
    MANIFEST,
    ExportBundle,
    read_bundle,
    read_config,
    read_tokenizer,
    write_manifest,
)
from edgelr.core.errors import InputError
from tests.helpers.runtime_graphs import VOCABULARY, encoder_model, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "bundle", encoder_model())


def test_a_manifest_survives_the_disk(bundle: ExportBundle) -> None:
    assert read_bundle(bundle.folder, verify=True) == bundle
    assert read_config(bundle)["vocab_size"] == VOCABULARY
    assert read_tokenizer(bundle).get_vocab_size() == VOCABULARY
    assert not list(bundle.folder.rglob("*.part"))


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no edgelr/manifest\.json"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json"])
def test_a_missing_file_is_named(bundle: ExportBundle, name: str) -> None:
    (bundle.folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_bundle(bundle.folder)


def test_a_truncated_file_is_refused_with_both_sizes(bundle: ExportBundle) -> None:
    path = bundle.model_path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"has {len(content) - 1:,} bytes.*{len(content):,}"):
        read_bundle(bundle.folder)


def test_an_altered_file_of_the_same_size_is_found_by_its_hash(bundle: ExportBundle) -> None:
    path = bundle.folder / "config.json"
    path.write_text(path.read_text().replace("11", "12"))
    assert read_bundle(bundle.folder) == bundle
    with pytest.raises(InputError, match=r"config.json .*sha256"):
        read_bundle(bundle.folder, verify=True)


def test_unknown_keys_and_wrong_types_are_refused(bundle: ExportBundle) -> None:
    path = bundle.folder / MANIFEST
    fields = json.loads(path.read_text())
    for wrong in ({**fields, "colour": "red"}, {**fields, "opset": "many"}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"colour|opset"):
            read_bundle(bundle.folder)
    path.write_text("{")
    with pytest.raises(InputError, match="the file"):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("outside", ["../model.onnx", "/etc/passwd", "a\\..\\b"])
def test_a_manifest_cannot_reach_outside_its_folder(bundle: ExportBundle, outside: str) -> None:
    write_manifest(bundle.folder, replace(bundle.manifest, model_file=outside))
    with pytest.raises(InputError, match="outside"):
        read_bundle(bundle.folder)


def test_a_missing_config_or_tokenizer_is_named(bundle: ExportBundle) -> None:
    (bundle.folder / "config.json").write_text("[]")
    (bundle.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"config.json holds no JSON object"):
        read_config(bundle)
    with pytest.raises(InputError, match=r"tokenizer.json is missing"):
        read_tokenizer(bundle)
