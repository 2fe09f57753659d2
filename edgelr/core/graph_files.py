"""What graph files are called: of one model, or of two that share their weights."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.modality import MODALITIES
from edgelr.core.vocabulary import Precision


def graph_file(modality: str, precision: Precision) -> str:
    """Name the graph file that answers."""
    return _name(MODALITIES.get(modality).graph, precision)


def encoder_file(modality: str, precision: Precision) -> str | None:
    """Name the encoder's own graph file; None where it has none."""
    beside = MODALITIES.get(modality).beside
    return None if beside is None else _name(beside, precision)


def encoder_beside(path: Path) -> Path | None:
    """Find the encoder's graph beside the one that answers."""
    for _, modality in MODALITIES.items():
        if modality.beside is not None and path.name.startswith(modality.graph):
            return path.with_name(path.name.replace(modality.graph, modality.beside))
    return None


def _name(stem: str, precision: Precision) -> str:
    return f"{stem}.onnx" if precision == "float32" else f"{stem}_fp16.onnx"
