"""Open the graphs of a bundle, and draw inputs for them.

ONNX Runtime is loaded when the first graph is opened: a parent asks runners for phases without it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.vocabulary import Array
from edgelr.runtime.requests import Execution

if TYPE_CHECKING:
    from edgelr.runtime.session import Session


def open_graph(bundle: ExportBundle, execution: Execution) -> Session:
    """Open the graph that answers.

    Raises:
        InputError: it cannot be loaded.
        ProviderError: it would run somewhere else.
    """
    from edgelr.runtime.session import open_session

    return open_session(bundle.model_path, execution)


def open_graphs(bundle: ExportBundle, execution: Execution) -> tuple[Session, Session]:
    """Open the graph that answers, and the one beside it.

    Only the first is profiled; its ``load_ms`` is the time that both took.

    Raises:
        InputError: one cannot be loaded.
        ProviderError: one would run somewhere else.
    """
    from edgelr.runtime.session import open_session

    assert bundle.encoder_path is not None, "this bundle has one graph"
    session = open_graph(bundle, execution)
    beside = open_session(bundle.encoder_path, replace(execution, profile=None))
    session.load_ms += beside.load_ms
    return session, beside


def random_ids(vocabulary: int, rows: int, tokens: int) -> Array:
    """Draw token ids ``(rows, tokens)``, always the same."""
    return np.random.default_rng(0).integers(vocabulary, size=(rows, tokens))


def random_values(*shape: int) -> Array:
    """Draw values of the normal distribution, float32, always the same."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)
