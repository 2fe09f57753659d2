"""A profile of this machine: measured with ONNX Runtime, and good for predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml
from onnx import TensorProto, ValueInfoProto, load

from edgelr.commands import detect
from edgelr.core.cache import Cache
from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.core.vocabulary import WeightPrecision
from edgelr.device.identity import is_this_machine
from edgelr.device.latency import LatencyModel, PhaseSize, Product, can_predict
from edgelr.device.profile import DeviceProfile, load_profile, profile_path
from edgelr.graph.probe import write_attention, write_decoding, write_norms, write_products
from edgelr.graph.workload import read_workload
from edgelr.runtime.measure import measure_one
from edgelr.runtime.session import open_session
from edgelr.stages.transformers.baselines import dense_in
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.subject import load_model
from tests.helpers.run_exports import Recorder
from tests.real.test_decoder import model_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, small products: what is tested is that everything holds together."""
    monkeypatch.setattr(detect, "SIZES", (64, 128))
    monkeypatch.setattr(detect, "TOKENS", (1, 16))
    monkeypatch.setattr(detect, "MOST_PAIRS", 4)


@pytest.mark.whole
@pytest.mark.usefixtures("small")
def test_a_detected_profile_loads_and_predicts(tmp_path: Path) -> None:
    path, listener = tmp_path / "here.yaml", Recorder()
    found = detect.detect(None, "cpu", 1, path, listener)
    assert found == load_profile(str(path))
    assert found.id == "here"
    assert is_this_machine(found)
    assert can_predict(found)
    assert listener.stages == ["probes", "kernels"]
    kernels = found.kernels
    assert kernels is not None
    assert kernels.threads == 1
    assert {row[0] for row in kernels.products} == {"float32", "int8", "int4"}
    assert len(kernels.products) == 3 * 2 * 2 * 2  # precisions, tokens, inputs, outputs
    assert all(row[4] > 0 for row in kernels.products)
    generic = load_profile("generic-cpu")
    assert found.workload == generic.workload
    assert 0 < found.runtime_bytes < generic.visible_bytes


def data_type(each: ValueInfoProto | TensorProto) -> int:
    return each.data_type if isinstance(each, TensorProto) else each.type.tensor_type.elem_type


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_a_gpu_is_measured_in_the_precision_that_ships(
    tmp_path: Path, weights: WeightPrecision
) -> None:
    """Attention in float32 would run on the CPU instead."""
    names = ("products", "norms", "attention", "decoding")
    products, norms, attention, decoding = (tmp_path / f"{name}.onnx" for name in names)
    write_products(products, 64, 32, weights, 1, 1, "float16")
    write_norms(norms, 32, 2, "float16")
    write_attention(attention, 2, 16, "float16")
    write_decoding(decoding, 2, 16, 4, 2, "float16")
    for path in (products, norms, attention, decoding):
        graph = load(path).graph
        floats = [*graph.input, *graph.output, *graph.initializer]
        assert {TensorProto.FLOAT} & {data_type(each) for each in floats} == set(), path
    for path in (products, decoding):  # of which the CPU has kernels in float16 as well
        session = open_session(path)
        feeds = {
            name: np.ones((1, 1, 32) if path == decoding else (3, 64)) for name in session.inputs
        }
        assert np.isfinite(session.run(feeds, list(session.outputs))[0][0]).all()


def test_what_the_driver_counts_is_the_process_on_a_gpu() -> None:
    fields = yaml.safe_load(profile_path("generic-cuda").read_text())
    device = load_profile("generic-cpu")
    kernels = {"source": "here", "products": [["float32", 1, 64, 64, 10.0]]}
    detect._fill(fields, device, kernels, None, "unknown")
    assert fields["memory"]["runtime"]["value"] == 720
    detect._fill(fields, device, kernels, 777 << 20, "told")
    assert (fields["id"], fields["memory"]["runtime"]["value"]) == ("told", 777)


@pytest.mark.cuda
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="no CUDA provider"
)
@pytest.mark.usefixtures("small")
def test_a_gpu_is_detected(tmp_path: Path) -> None:
    found = detect.detect(None, "cuda", 1, tmp_path / "here.yaml", Recorder())
    assert can_predict(found)
    assert found.kernels is not None
    assert {row[0] for row in found.kernels.products} == {"float16", "int8", "int4"}


@pytest.mark.usefixtures("small")
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"mine\.yaml exists"):
        detect.detect(None, "cpu", 1, path, Recorder())
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match=r"is no \.yaml file"):
        detect.detect(None, "cpu", 1, tmp_path / "mine.txt", Recorder())


# --- real models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> DeviceProfile:
    path = tmp_path_factory.mktemp("profile") / "here.yaml"
    return detect.detect(None, "cpu", None, path, Recorder())


@pytest.mark.real
@pytest.mark.slow
def test_larger_products_take_longer(here: DeviceProfile) -> None:
    clock = LatencyModel(here, ModelShape(1, 64, 64, 1, 1, 64, 64), "float32")
    times = [clock.product_seconds(Product(576, n, "float32"), 128) for n in (144, 576, 2304)]
    assert times[0] < times[1] < times[2]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_real_models_take_as_long_as_predicted(
    here: DeviceProfile, name: str, weights: WeightPrecision, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    model = load_model(make_settings(model=model_path(name)), Run(cache))
    bundle = dense_in(model, dense_export(model, Run(cache, Recorder())), weights, here, Run(cache))
    shape = bundle.manifest.shape
    assert shape is not None
    clock, workload = LatencyModel(here, shape, "float32"), read_workload(bundle.model_path)
    for phase in measure_one(bundle, repetitions=7).phases:
        context = phase.context_tokens or phase.tokens
        predicted = clock.milliseconds(workload, PhaseSize(phase.batch, phase.tokens, context))
        assert predicted == pytest.approx(phase.p50_ms, rel=0.25), phase.key
