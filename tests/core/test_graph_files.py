"""Names of graph files: one for a model, or two that are found from each other."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgelr.core.graph_files import encoder_beside, encoder_file, graph_file
from edgelr.core.modality import MODALITIES
from edgelr.core.vocabulary import Precision

every_modality = pytest.mark.parametrize("modality", MODALITIES.names())
every_precision = pytest.mark.parametrize("precision", get_args(Precision))


@every_modality
@every_precision
def test_two_graphs_are_beside_each_other_where_a_modality_has_two(
    modality: str, precision: Precision
) -> None:
    name, beside = graph_file(modality, precision), encoder_file(modality, precision)
    assert (beside is not None) == (MODALITIES.get(modality).beside is not None)
    assert beside != name
    folder = Path("bundle") / "onnx"
    assert encoder_beside(folder / name) == (None if beside is None else folder / beside)


@every_modality
def test_a_precision_has_a_file_of_its_own(modality: str) -> None:
    full, half = (graph_file(modality, each) for each in get_args(Precision))
    assert half == full.replace(".onnx", "_fp16.onnx") != full


@every_modality
def test_no_graph_is_beside_the_encoder_itself(modality: str) -> None:
    stem = MODALITIES.get(modality).beside
    assert stem is None or encoder_beside(Path(f"{stem}.onnx")) is None
