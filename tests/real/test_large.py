"""A model of more than three gigabytes: past what one protobuf file can hold."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgelr import pipeline
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from tests.conftest import write_tiny
from tests.helpers.run_exports import Recorder, quick_settings

PROTOBUF_LIMIT_BYTES = 2**31


@pytest.mark.slow
def test_a_model_of_three_gigabytes_is_exported_rewritten_and_run(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 32000,
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "num_hidden_layers": 26,
        "num_attention_heads": 24,
        "num_key_value_heads": 24,
        "head_dim": 64,
        "initializer_range": 0.02,
    }
    folder = write_tiny(tmp_path / "model", "llama", **sizes)
    settings = quick_settings(folder, keep=0.8, recipe="svd-llm", calibration_tokens=256)
    out, cache = tmp_path / "out", Cache(tmp_path / "cache")
    report = pipeline.export(settings, load_profile("generic-cpu"), out, Run(cache, Recorder()))
    assert report.dense_file_bytes > 3e9
    assert PROTOBUF_LIMIT_BYTES < report.bundle_file_bytes < 0.83 * report.dense_file_bytes
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    bundle = read_bundle(out, verify=True)
    onnx.checker.check_model(str(bundle.model_path), full_check=True)
