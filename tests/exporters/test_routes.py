"""What the libraries that trace a model raise is told in a line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from edgelr.exporters.tracing import routes
from edgelr.exporters.tracing.routes import trace_with_genai_builder, traced_by_transformers
from torch import Tensor, nn

from edgelr.core.errors import InputError


class Undecided(nn.Module):
    """A module that torch cannot export: its path depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


@pytest.fixture
def plain_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the builder as edgelr does; other tests fork it, see ``builder_server``."""
    monkeypatch.setattr(routes, "subprocess", subprocess)


@pytest.mark.whole
@pytest.mark.usefixtures("plain_builder")
def test_what_the_builder_says_last_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nope"}')
    with pytest.raises(InputError, match=r"builder ended with 1 on \S+: ") as told:
        trace_with_genai_builder(nn.Linear(1, 1), tmp_path, tmp_path / "out", {})
    assert "\n" not in str(told.value)
    assert "Traceback" not in str(told.value)


@pytest.mark.whole
def test_a_forked_builder_writes_the_same_files(
    tiny_decoder_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    written = []
    for name in ("forked", "plain"):
        if name == "plain":
            request.getfixturevalue("plain_builder")
        folder = tmp_path / name
        trace_with_genai_builder(nn.Linear(1, 1), tiny_decoder_folder, folder, {})
        files = [path for path in folder.rglob("*") if path.is_file()]
        written.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert written[0].keys() == written[1].keys()
    assert written[0] == written[1]


def test_what_torch_says_of_a_module_that_it_cannot_export_is_told() -> None:
    with pytest.raises(InputError, match=r"^transformers cannot trace Undecided: ") as told:
        traced_by_transformers(Undecided(), {"x": torch.ones(2, 3)})
    assert "\n" not in str(told.value)
