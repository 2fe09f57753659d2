"""Functions of the runtime in a fresh process, so that its memory is given back.

Every name in ``CALLS`` can be called here with the arguments of the function of that name, where
neither ONNX Runtime nor its memory is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator

from edgelr.core.measurement import OperatorTime
from edgelr.core.results import DenseParity, Metric, Parity
from edgelr.core.vocabulary import Progress
from edgelr.runtime.messages import unpacked
from edgelr.runtime.worker_client import Worker

if TYPE_CHECKING:  # what their arguments and results are, for whoever calls them here
    from edgelr.runtime.reference_tests.write import write_references as write_references
    from edgelr.runtime.sampling import sample_tokens as sample_tokens
    from edgelr.runtime.stored_answers import same_answers as same_answers
    from edgelr.runtime.stored_answers import store_answers as store_answers
    from edgelr.runtime.time_probes import time_graphs as time_graphs
    from edgelr.runtime.timed_session import operators as operators
    from edgelr.runtime.validate import accuracy as accuracy
    from edgelr.runtime.validate import dense_parity as dense_parity
    from edgelr.runtime.validate import parity as parity
    from edgelr.runtime.validate import twin_error as twin_error


@dataclass(frozen=True)
class Call:
    """A function that a worker runs.

    Attributes:
        module: module of ``edgelr.runtime`` that holds it.
        returns: type of its result.
    """

    module: str
    returns: Any


CALLS: Mapping[str, Call] = {
    "accuracy": Call("validate", tuple[Metric, ...]),
    "parity": Call("validate", Parity),
    "dense_parity": Call("validate", DenseParity),
    "twin_error": Call("validate", float),
    "operators": Call("timed_session", list[OperatorTime]),
    "sample_tokens": Call("sampling", Annotated[list[list[int]], AfterValidator(np.array)]),
    "time_graphs": Call("time_probes", list[list[float]]),
    "store_answers": Call("stored_answers", None),
    "same_answers": Call("stored_answers", Parity),
    "write_references": Call("reference_tests.write", None),
}


def __getattr__(name: str) -> Callable[..., Any]:
    """Find a function of ``CALLS``, which then runs in a fresh process."""
    if name in CALLS:
        return partial(call, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def call(name: str, *arguments: Any, progress: Progress | None = None, **named: Any) -> Any:
    """Run a function in a fresh process."""
    with Worker() as worker:
        return call_in(worker, name, *arguments, progress=progress, **named)


def call_in(
    worker: Worker, name: str, *arguments: Any, progress: Progress | None = None, **named: Any
) -> Any:
    """Run a function in a worker that goes on afterwards."""
    found = worker.call(name, arguments, named, progress)
    return unpacked(CALLS[name].returns, found)
