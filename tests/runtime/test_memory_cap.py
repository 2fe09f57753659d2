"""Memory: predicted from the files, measured in a fresh process, and proved under a real limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import yaml

from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import ProviderError
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.core.vocabulary import WeightPrecision
from edgelr.device.profile import DeviceProfile, load_profile, profile_path
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.measure import measure_one
from edgelr.runtime.memory_cap import predict_peak, run_under_cap
from edgelr.runtime.requests import Execution, PhaseSizes
from edgelr.runtime.worker_client import Worker
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.baselines import dense_in
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.subject import load_model
from tests.helpers.run_exports import Recorder, session_cache

MIB = 2**20


def board(folder: Path, visible_mib: float, context: int = 96, prefill: int = 32) -> Path:
    """Write a made-up device: all of its memory is for the process."""
    fields = yaml.safe_load(profile_path("generic-cpu").read_text())
    fields["id"] = "made-up"
    fields["memory"]["visible"]["value"] = visible_mib
    fields["memory"]["reserved"]["value"] = fields["memory"]["runtime"]["value"] = 0
    fields["workload"]["context_tokens"]["value"] = context
    fields["workload"]["prefill_tokens"]["value"] = prefill
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def export(tiny_decoder: LoadedModel, cache: Cache) -> DenseExport:
    return dense_export(tiny_decoder, Run(cache, Recorder()))


def test_what_grows_is_predicted_to_grow(export: DenseExport) -> None:
    def predicted(batch: int, tokens: int, context: int) -> int:
        found = predict_peak(export.bundle, "cpu", 0, batch, tokens, context)
        assert found is not None
        return found

    small = predicted(1, 8, 64)
    assert predicted(1, 8, 65) > small
    assert predicted(1, 9, 64) > small
    assert predicted(2, 8, 64) - small == pytest.approx(small - predicted(0, 8, 64))


def test_a_cache_that_grows_is_there_twice(export: DenseExport) -> None:
    manifest = export.bundle.manifest
    growing = ExportBundle(export.bundle.folder, replace(manifest, cache_in_place=False))
    more = [
        (predict_peak(bundle, "cpu", 0, 1, 1, 101) or 0)
        - (predict_peak(bundle, "cpu", 0, 1, 1, 100) or 0)
        for bundle in (export.bundle, growing)
    ]
    shape = manifest.shape
    assert shape is not None
    assert more[1] - more[0] == 2 * shape.layers * shape.kv_heads * shape.head_size * 4


def test_a_bundle_without_a_shape_has_no_prediction(export: DenseExport) -> None:
    bundle = ExportBundle(export.bundle.folder, replace(export.bundle.manifest, shape=None))
    assert predict_peak(bundle, "cpu", 0, 1, 1, 1) is None


def test_enough_memory_is_enough(export: DenseExport, tmp_path: Path) -> None:
    found = run_under_cap(
        export.bundle, load_profile(str(board(tmp_path, 400))), Execution(threads=1)
    )
    assert found.passed, found.problem
    assert found.peak_bytes is not None
    assert found.peak_bytes <= found.limit_bytes == 400 * MIB
    assert (found.context_tokens, found.prefill_tokens) == (96, 32)


def test_too_little_memory_ends_the_run_as_predicted(export: DenseExport, tmp_path: Path) -> None:
    with Worker() as worker:
        started_mib = worker.memory().resident_bytes / MIB
    device = load_profile(str(board(tmp_path, started_mib + 2)))
    found = run_under_cap(export.bundle, device, Execution(threads=1))
    assert not found.passed
    assert found.peak_bytes is None
    assert found.predicted_bytes is not None
    assert found.predicted_bytes > found.limit_bytes


def test_a_provider_that_is_not_used_is_not_a_lack_of_memory(
    export: DenseExport, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(ProviderError, match="Asked for CUDAExecutionProvider"):
        run_under_cap(export.bundle, load_profile(str(board(tmp_path, 400))), Execution("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no CUDA provider"
)
@pytest.mark.parametrize(
    ("mib", "problem"),
    [(8000.0, ""), (0.05, "too little memory for"), (8.0, "It ran, but the process")],
)
def test_the_memory_of_a_gpu_is_limited(
    export: DenseExport, tmp_path: Path, mib: float, problem: str
) -> None:
    found = run_under_cap(export.bundle, load_profile(str(board(tmp_path, mib))), Execution("cuda"))
    assert found.mechanism == "gpu_mem_limit"
    assert problem in found.problem
    assert found.passed == (not problem)
    assert (found.peak_bytes is None) == ("memory for" in found.problem)


# --- real models -------------------------------------------------------------------------------


def require_prediction(bundle: ExportBundle, context: int) -> None:
    found = measure_one(bundle, sizes=PhaseSizes(context_tokens=(context,)), repetitions=3).memory
    assert found.predicted_bytes == pytest.approx(found.peak_bytes, rel=0.1)


def real_export(name: str, weights: WeightPrecision, cache: Cache) -> ExportBundle:
    from tests.real.test_decoder import model_path

    device: DeviceProfile = load_profile("generic-cpu")
    model = load_model(make_settings(model=model_path(name)), Run(cache))
    dense = dense_export(model, Run(cache, Recorder()))
    return dense_in(model, dense, weights, device, Run(cache))


@pytest.mark.real
@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_the_memory_of_minilm_is_as_predicted(weights: WeightPrecision, cache: Cache) -> None:
    require_prediction(real_export("minilm", weights, cache), 128)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("context", [128, 2048])
@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_the_memory_of_smollm2_is_as_predicted(
    weights: WeightPrecision, context: int, cache: Cache
) -> None:
    require_prediction(real_export("smollm2", weights, cache), context)
