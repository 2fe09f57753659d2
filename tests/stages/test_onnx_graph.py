"""The graph that a name stands for: a file, or a module that is traced each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.data.tensors import load_samples
from edgelr.stages.onnx.graph import Graph, open_graph
from tests.helpers import foreign_graphs

FACTOR = [1.0]  # of the module: a user's code changes between two runs


def module() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 4)
    linear.weight.data *= FACTOR[0]
    return linear, torch.randn(3, 6)


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    run = Run(Cache(tmp_path / "cache"))
    assert open_graph("given.onnx", run) == Graph(Path("given.onnx"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.whole
def test_a_module_is_traced_again_when_its_code_has_changed(tmp_path: Path) -> None:
    run = Run(Cache(tmp_path / "cache"))
    for factor in (1.0, 3.0):
        FACTOR[0] = factor
        found = open_graph(f"{__name__}:module", run)
        assert found.inputs is not None
        (x,) = load_samples(found.inputs).values()
        (answer,) = foreign_graphs.run(found.path, input=x)
        expected = module()[0](torch.from_numpy(x)).detach().numpy()
        assert abs(answer - expected).max() < 1e-5


def test_a_folder_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Write such a function, which may load any model"):
        open_graph(str(tmp_path), Run(Cache(tmp_path / "cache")))
