"""State of a training, as one file that is always whole."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "state.safetensors"


@dataclass
class State:
    """State of a training; with its tensors, all that a later call needs.

    Attributes:
        step: number of updates so far.
        seconds: wall-clock time of all calls, up to what was saved.
        first_loss: held-out loss before the first step.
        best_loss: lowest held-out loss.
        best_step: step of the lowest held-out loss.
        evaluated_step: step of the last evaluation; negative before the first.
        evaluated_share: share of the schedule at the last evaluation.
        step_seconds: time of the last step.
        evaluation_seconds: time of the last evaluation.
        note: reason why the training ended before its time.
        finished: True where nothing is left to do.
    """

    step: int = 0
    seconds: float = 0.0
    first_loss: float = math.nan
    best_loss: float = math.nan
    best_step: int = 0
    evaluated_step: int = -1
    evaluated_share: float = 0.0
    step_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    note: str = ""
    finished: bool = False


def save(folder: Path, state: State, tensors: dict[str, Tensor]) -> None:
    """Replace the saved state and tensors in one step.

    One file, because of two an interruption could leave the first new and the second old.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}-{os.getpid()}"
    save_file(tensors, partial, {"state": json.dumps(asdict(state))})
    partial.replace(folder / FILE)


def load(folder: Path) -> tuple[State, dict[str, Tensor]]:
    """Read the state that was saved last; a new one where none was."""
    if not (folder / FILE).exists():
        return State(), {}
    with safe_open(folder / FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return State(**json.loads(file.metadata()["state"])), tensors
