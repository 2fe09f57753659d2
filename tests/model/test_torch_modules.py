"""Any torch module with its inputs as source: traced, compared, compressed, judged again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgelr import pipeline
from edgelr.commands.inspect import inspect_sites
from edgelr.commands.validate import validate_again
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.graph.inputs import read_inputs
from edgelr.graph.open import open_foreign
from edgelr.model.load import load
from edgelr.report.schema import from_json
from edgelr.runtime.runners.tensors import open_tensors
from edgelr.stages.onnx.graph import open_graph
from tests.helpers.run_exports import Recorder

pytestmark = pytest.mark.whole

HERE = f"{__name__}:"  # factories are imported by name, as users name theirs


class Net(nn.Module):
    """Two inputs, two outputs, an attention, linears and a pointwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Sequential(nn.Linear(24, 64), nn.GELU(), nn.Linear(64, 40))
        self.attend = nn.TransformerEncoderLayer(40, 4, 96, batch_first=True)
        self.mix = nn.Conv1d(40, 56, 1)
        self.head = nn.Linear(56, 10)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.attend(self.widen(x))
        pooled = self.mix(hidden.mT).mean(-1) * scale[:, None]
        return {"logits": self.head(pooled), "hidden": hidden}


class OneRow(nn.Sequential):
    """Knows of one sample only."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x.reshape(1, 24))
        return result


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(len(x), self.out_features)


def correlated(rows: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(rows, 12, 5, generator=random) @ torch.randn(5, 24, generator=random)


def seeded(module: type[nn.Module], *sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return module(*sizes)


def net() -> tuple[nn.Module, dict[str, Tensor]]:
    return seeded(Net), {"x": correlated(48), "scale": torch.linspace(0.5, 1.5, 48)}


def net_of_a_tuple() -> tuple[nn.Module, tuple[Tensor, ...]]:
    module, inputs = net()
    return module, tuple(inputs.values())


def one_row() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return OneRow(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 64)), correlated(48)[:, 0]


def noisy() -> tuple[nn.Module, Tensor]:
    return seeded(Noisy, 24, 20), correlated(8)[:, 0]


def infinite() -> tuple[nn.Module, Tensor]:
    module = seeded(nn.Linear, 24, 20)
    module.bias.data[3] = torch.inf
    return module, correlated(8)[:, 0]


def of_unequal_lengths() -> tuple[nn.Module, dict[str, Tensor]]:
    return seeded(Net), {"x": correlated(8), "scale": torch.ones(7)}


def without_inputs() -> nn.Module:
    return seeded(Net)


def of_an_unknown_family() -> tuple[nn.Module, dict[str, Tensor]]:
    """A model of transformers whose type no exporter answers to."""
    from transformers import ConvNextV2Config, ConvNextV2Model

    torch.manual_seed(0)
    sizes = {"hidden_sizes": [32, 48], "depths": [1, 1], "num_stages": 2, "patch_size": 2}
    model = ConvNextV2Model(ConvNextV2Config(**sizes, initializer_range=0.3))
    return model, {"pixel_values": torch.randn(24, 3, 16, 16)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def test_a_module_is_compressed_by_its_inputs_and_judged_again(
    cache: Cache, tmp_path: Path
) -> None:
    settings = make_settings(model=f"{HERE}net", task="tensors", profile="generic-cpu", keep=0.7)
    device, listener = load_profile("generic-cpu"), Recorder()
    out = tmp_path / "bundle"
    report = pipeline.export(settings, device, out, Run(cache, listener))
    assert listener.notes == []  # the module's inputs are no random ones
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert report.validation.text == "the module's inputs, second half (24 samples)"
    assert 0.6 < report.plan.kept <= 0.7
    names = {site.name for site in report.plan.sites}
    assert names >= {"widen.0", "widen.2", "attend.linear1", "mix", "head"}
    assert report.source == f"{HERE}net"
    assert from_json((out / "reports" / "generic-cpu.json").read_text()) == report
    bundle = read_bundle(out, verify=True)
    module, inputs = net()
    answers = open_tensors(bundle.model_path).outputs({k: v.numpy() for k, v in inputs.items()})
    cosines = nn.functional.cosine_similarity(
        torch.tensor(answers["logits"]), module.eval()(**inputs)["logits"]
    )
    assert cosines.mean() > 0.97
    again = validate_again(bundle, None, None, None, "cpu", Run(cache, listener))
    assert again.passed


def test_the_number_of_samples_is_free(cache: Cache) -> None:
    source = open_graph(f"{HERE}net_of_a_tuple", Run(cache))
    free = read_inputs(open_foreign(source.path))
    assert [(each.name, each.shape[1:]) for each in free] == [("x", (12, 24)), ("scale", ())]
    module, inputs = net()
    arrays = {key: each[:5].numpy() for key, each in inputs.items()}
    found = open_tensors(source.path).outputs(arrays)
    expected = module.eval()(**{key: each[:5] for key, each in inputs.items()})
    for key, wanted in expected.items():
        np.testing.assert_allclose(found[key], wanted.detach().numpy(), atol=1e-4)


def test_a_module_may_take_one_sample_only(cache: Cache) -> None:
    settings = make_settings(model=f"{HERE}one_row", task="tensors", keep=0.7)
    made = pipeline.plan(settings, load_profile("generic-cpu"), Run(cache, Recorder()))
    assert {site.name: site.changed for site in made.plan.sites} == {"0": False, "2": True}


@pytest.mark.breadth
def test_a_family_that_nobody_declared_is_a_module(cache: Cache, tmp_path: Path) -> None:
    name = f"{HERE}of_an_unknown_family"
    settings = make_settings(model=name, task="tensors", profile="generic-cpu", keep=0.8)
    device = load_profile("generic-cpu")
    report = pipeline.export(settings, device, tmp_path / "out", Run(cache, Recorder()))
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert any(site.name.endswith("layers.0.pwconv1") for site in report.plan.sites)
    assert report.plan.kept <= 0.8


@pytest.mark.breadth
def test_the_linears_of_a_module_can_be_looked_at(cache: Cache) -> None:
    rows = inspect_sites(make_settings(model=f"{HERE}one_row", task="tensors"), Run(cache))
    assert [(row.name, row.in_features, row.out_features) for row in rows] == [
        ("0", 24, 64),
        ("2", 64, 64),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("noisy", r"differs from the module by .* in output_0.*draws random numbers"),
        ("infinite", "NaN or infinite values in output_0"),
        ("of_unequal_lengths", r"x \(8, 12, 24\), scale \(7,\).*equally many"),
        ("without_inputs", r"returned Net; with --task tensors, expected \(torch module, example"),
        ("nothing", "cannot be imported"),
    ],
)
def test_what_cannot_be_traced_is_refused(name: str, message: str, cache: Cache) -> None:
    with pytest.raises(InputError, match=message):
        open_graph(HERE + name, Run(cache))


def test_a_module_without_its_task_is_told_of_it(cache: Cache) -> None:
    with pytest.raises(InputError, match="taken from a factory with --task tensors"):
        load(f"{HERE}net", cache)
