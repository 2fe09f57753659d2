"""Data, lengths and sizes are set beside what the small files of a model tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgelr.core.errors import BudgetError, EdgelrError, InputError
from edgelr.core.settings import make_settings
from edgelr.model.first_look import FirstLook
from edgelr.stages.fit import require_fitting

TEXTS, IMAGES = FirstLook("text", 128, 1000), FirstLook("image", None, None)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of 1,000 tokens, each with a row of 64 numbers; and some data."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "photos"):
        Path(name).mkdir()
    save_file({"table": np.zeros((1000, 64), np.float32)}, "model/model.safetensors")
    Path("photos/one.png").touch()
    Path("list.txt").write_text("photos/one.png\n")
    Path("text.txt").write_text("A line.\n")
    return "model"


@pytest.mark.parametrize(
    ("seen", "options", "kind", "told"),
    [
        (TEXTS, {"calibration": ("photos",)}, InputError, "reads texts"),
        (TEXTS, {"evaluation": "photos"}, InputError, "reads texts"),
        (IMAGES, {"calibration": ("text.txt",)}, InputError, "Mend the list"),
        (TEXTS, {"calibration_length": 129}, InputError, "--calibration-length asks for 129"),
        (TEXTS, {"context_tokens": 200}, InputError, "--context-tokens asks for 200"),
        (TEXTS, {"max_size": "120KB", "precision": "fp16"}, BudgetError, "128,000 bytes or more"),
        (TEXTS, {"max_size": "30KB", "precision": "int4"}, BudgetError, "takes 32,000 bytes"),
        (TEXTS, {"max_size": "15KB"}, BudgetError, "takes 16,000 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: str, seen: FirstLook, options: dict[str, Any], kind: type[EdgelrError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        require_fitting(seen, make_settings(model=model, **options))


@pytest.mark.parametrize(
    ("seen", "options"),
    [
        (TEXTS, {"calibration": ("self", "text.txt"), "calibration_length": 128}),
        (TEXTS, {"max_size": "17KB", "precision": "auto"}),
        (TEXTS, {"max_size": "130KB", "precision": "fp32"}),
        (TEXTS, {"max_size": "33KB", "precision": "int4"}),
        (IMAGES, {"calibration": ("photos",), "evaluation": "list.txt"}),
        (FirstLook("", None, None), {"calibration": ("photos",)}),
    ],
)
def test_what_may_fit_is_let_through(model: str, seen: FirstLook, options: dict[str, Any]) -> None:
    require_fitting(seen, make_settings(model=model, **options))
