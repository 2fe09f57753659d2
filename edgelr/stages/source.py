"""Sources: what a run can start from. The stages are the same for all of them.

A source reads the original, prices its linears, writes the compressed graph and compares it with
what it should compute. Budgets, objectives, the gate, measurement and the report are common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import Prediction
from edgelr.core.plan import Budget, Plan
from edgelr.core.registry import Registry
from edgelr.core.results import Parity
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Precision, WeightPrecision
from edgelr.device.latency import PhaseSize, Workload
from edgelr.device.profile import DeviceProfile
from edgelr.stages.staging import Staging
from edgelr.stages.subject import Costs, DenseExport, Planned, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT = "transformers"


@dataclass(frozen=True)
class Written:
    """A bundle that was written, and what is told about it.

    Attributes:
        bundle: bundle that ships.
        twin: the same plan in float32, which can be compared to the last digits; None where the
            bundle itself can.
        notes: sentences about how it was made, for the report.
    """

    bundle: ExportBundle
    twin: ExportBundle | None = None
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One original, from its name to its compressed graph.

    Lifecycle: ``subject``, ``dense``, ``costs`` (once for each round), ``budget`` and
    ``measured_loss`` while the plan is made; ``write``, ``parity`` and ``baseline`` afterwards.
    """

    def subject(self, settings: Settings, device: DeviceProfile, run: Run) -> Subject:
        """Open the original, and resolve the settings for it and a device."""
        ...

    def dense(self, subject: Any, run: Run) -> tuple[Any, DenseExport]:
        """Export the original as it is, or find the export, and compare the two.

        Returns:
            The subject in the form in which it was exported, and the export.

        Raises:
            InputError: the export does not answer like the original.
        """
        ...

    def dense_bundle(self, settings: Settings, run: Run) -> ExportBundle:
        """Export the original as it is, for no device: what bundles are compared with."""
        ...

    def costs(
        self, subject: Any, dense: DenseExport, run: Run, before: Planned[Any, Any] | None
    ) -> Costs:
        """Predict what every form and rank of the linears loses.

        Args:
            subject: original and settings.
            dense: export of the original.
            run: cache, listener, clock and seed.
            before: plan of the round before, whose model is looked at; None in the first.
        """
        ...

    def budget(self, subject: Any, dense: DenseExport) -> Budget:
        """Compute the bytes that the device leaves for the planned weights."""
        ...

    def workload(self, subject: Any, bundle: ExportBundle) -> Workload:
        """List what a graph of the original or of a bundle computes."""
        ...

    def prediction(
        self,
        subject: Any,
        dense: ExportBundle,
        bundle: ExportBundle,
        phases: list[PhaseSize],
        resident_bytes: int,
    ) -> Prediction | None:
        """Predict the latency of both graphs on the device; None without rates.

        Args:
            subject: original and settings.
            dense: original in the precision that ships.
            bundle: bundle that ships.
            phases: sizes of the calls that are predicted.
            resident_bytes: memory of the process with the bundle loaded.
        """
        ...

    def measured_loss(self, subject: Any, costs: Any, run: Run) -> Callable[[Plan], float]:
        """Return what measures a plan in the unit that the accuracy gate limits."""
        ...

    def write(self, made: Any, place: Staging, run: Run) -> Written:
        """Make the factors of a plan, and write the graph."""
        ...

    def parity(self, made: Any, written: Written, place: Staging) -> Parity:
        """Compare what was written with what its factors compute."""
        ...

    def baseline(
        self,
        subject: Any,
        dense: DenseExport,
        weights: WeightPrecision,
        values: Precision,
        run: Run,
    ) -> ExportBundle | None:
        """Export the original at full rank in other precisions; None where that cannot be done."""
        ...

    def require_one_graph(self, subject: Any, command: str) -> None:
        """Refuse a model of two graphs, for a command that takes none of these.

        Raises:
            InputError: it is one.
        """
        ...

    def calibrated_on(self, subject: Any, dense: DenseExport, run: Run) -> tuple[str, ...]:
        """Name the data that calibrate, and how much of them."""
        ...

    def notes(self, made: Any) -> tuple[str, ...]:
        """Say for the report what the plan was made from."""
        ...

    def lock(self, made: Any) -> dict[str, object]:
        """Name what the plan was made from, with its hashes."""
        ...

    def singular_values(
        self, settings: Settings, run: Run
    ) -> tuple[tuple[LinearSite, ...], Callable[[LinearSite], NDArray[np.float64]]]:
        """List the linears, and what computes the singular values of each."""
        ...


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        accepts: function that tells whether settings name such an original.
        open: maker of the source, which imports nothing heavy before its methods run.
        needs: packages without which the original cannot be read.
    """

    accepts: Callable[[Settings], bool]
    open: Callable[[], Source]
    needs: tuple[str, ...] = ()


SOURCES: Registry[SourceKind] = Registry(
    "source", package="edgelr.stages.sources", group="edgelr.sources"
)


def kind_of_source(settings: Settings) -> str:
    """Name the source that takes the model of the settings; transformers takes what is left."""
    kinds = ((name, kind) for name, kind in SOURCES.items() if name != DEFAULT)
    return next((name for name, kind in kinds if kind.accepts(settings)), DEFAULT)


def open_source(settings: Settings) -> Source:
    """Choose the source that takes the model of the settings."""
    return SOURCES.get(kind_of_source(settings)).open()
