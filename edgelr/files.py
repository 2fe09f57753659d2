"""What graph files are called: of one model, or of an encoder and a decoder beside it."""

from __future__ import annotations

from pathlib import Path

from edgelr.tasks import TASKS
from edgelr.types import Precision, Task

ENCODER, DECODER = "encoder_model", "decoder_with_past_model"  # optimum's names


def graph_file(task: Task, precision: Precision) -> str:
    """Name the graph that answers; of a pair that is the decoder's."""
    stem = DECODER if task in TASKS and TASKS[task].has_pairs else "model"
    return f"{stem}.onnx" if precision == "float32" else f"{stem}_fp16.onnx"


def encoder_file(task: Task, precision: Precision) -> str | None:
    """Name the encoder's own graph; None where it has none."""
    name = graph_file(task, precision)
    return name.replace(DECODER, ENCODER) if name.startswith(DECODER) else None


def encoder_beside(path: Path) -> Path | None:
    """Find the encoder's graph beside the one that answers."""
    name = path.name
    return path.with_name(name.replace(DECODER, ENCODER)) if name.startswith(DECODER) else None
