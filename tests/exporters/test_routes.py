"""What the libraries that trace a model raise is told in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgelr.exporters.tracing.routes import trace_with_genai_builder, traced_by_transformers
from torch import Tensor, nn

from edgelr.core.errors import InputError


class Undecided(nn.Module):
    """A module that torch cannot export: its path depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


@pytest.mark.whole
def test_what_the_builder_says_last_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nope"}')
    with pytest.raises(InputError, match=r"builder ended with 1 on \S+: ") as told:
        trace_with_genai_builder(nn.Linear(1, 1), tmp_path, tmp_path / "out", {})
    assert "\n" not in str(told.value)
    assert "Traceback" not in str(told.value)


def test_what_torch_says_of_a_module_that_it_cannot_export_is_told() -> None:
    with pytest.raises(InputError, match=r"^transformers cannot trace Undecided: ") as told:
        traced_by_transformers(Undecided(), {"x": torch.ones(2, 3)})
    assert "\n" not in str(told.value)
