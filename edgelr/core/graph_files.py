"""What graph files are called: of one model, or of two that share their weights.

An encoder is beside its decoder, and what reads texts beside what reads images.
"""

from __future__ import annotations

from pathlib import Path

from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Precision, Task

ENCODER, DECODER = "encoder_model", "decoder_with_past_model"  # optimum's names
TEXTS, IMAGES = "text_model", "vision_model"
BESIDE = {DECODER: ENCODER, IMAGES: TEXTS}


def graph_file(task: Task, precision: Precision) -> str:
    """Name the graph that answers; of a pair that is the decoder's, or that of images."""
    traits = TASKS.get(task)
    stem = "model"
    if traits is not None and (traits.has_pairs or traits.matches):
        stem = DECODER if traits.has_pairs else IMAGES
    return f"{stem}.onnx" if precision == "float32" else f"{stem}_fp16.onnx"


def encoder_file(task: Task, precision: Precision) -> str | None:
    """Name the encoder's own graph; None where it has none."""
    found = encoder_beside(Path(graph_file(task, precision)))
    return None if found is None else found.name


def encoder_beside(path: Path) -> Path | None:
    """Find the encoder's graph beside the one that answers."""
    for stem, beside in BESIDE.items():
        if path.name.startswith(stem):
            return path.with_name(path.name.replace(stem, beside))
    return None
