"""What is compressed, for what and how; what that costs; and the plan: the values of all stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from edgelr.compress.methods import METHODS
from edgelr.compress.spectra import SpectrumTable
from edgelr.core.bundle import ExportBundle
from edgelr.core.dimensions import ModelShape
from edgelr.core.plan import Budget, Plan
from edgelr.core.results import DenseParity
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import Precision, Task, WeightPrecision
from edgelr.device.gate import profile_drop
from edgelr.device.latency import LatencyModel, PhaseSize, device_runs
from edgelr.device.profile import DeviceProfile
from edgelr.planning.allocate import Search, prepare
from edgelr.planning.recipes import Recipe


@dataclass(frozen=True)
class Subject:
    """What is compressed, for what device and how: all that is known before any computation.

    Attributes:
        settings: options of the run.
        device: profile that it is made for.
        recipe: published method, or a variant of one.
        precision: precision of what weights are multiplied with.
        weights: precisions that weights may have; the first is that of dense ones.
        groups: linears that are factorized together.
        shape: sizes that decide about memory and time.
        context_tokens: longest sequence that memory is left for; 0 without sequences.
    """

    settings: Settings
    device: DeviceProfile
    recipe: Recipe
    precision: Precision
    weights: tuple[WeightPrecision, ...]
    groups: list[SiteGroup]
    shape: ModelShape
    context_tokens: int

    @property
    def task(self) -> Task:
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """Hash that identifies the original's weights."""
        raise NotImplementedError

    @property
    def sites(self) -> tuple[LinearSite, ...]:
        """Linears that can be factorized, in the order in which they run."""
        raise NotImplementedError

    @property
    def planned_groups(self) -> list[SiteGroup]:
        """Everything that a plan decides about."""
        return self.groups

    @property
    def planned_parameters(self) -> int:
        """Parameters of everything that a plan decides about."""
        return sum(site.parameters for site in self.sites)

    @property
    def multiplied(self) -> tuple[LinearSite, ...]:
        """Linears whose products a plan replaces; a table is gathered from, unless it is tied."""
        return self.sites

    @property
    def runs(self) -> list[PhaseSize]:
        """Sizes of the calls that the device's workload makes."""
        return device_runs(self.device, self.shape, self.context_tokens)

    @property
    def clock(self) -> LatencyModel:
        """Predictor of latency on the device.

        Raises:
            ValueError: the device has no rates; ask ``can_predict`` before.
        """
        return LatencyModel(self.device, self.shape, self.precision)

    @property
    def node_bytes(self) -> int:
        """Bytes of the names, shapes and nodes of a factorized linear."""
        return 4096

    @property
    def room(self) -> tuple[int, int]:
        """Bytes that the cache and the bundle take on their disks, at most."""
        raise NotImplementedError

    @property
    def judged_on(self) -> str:
        """Name of the data that the accuracy figures are about."""
        raise NotImplementedError

    @property
    def license(self) -> str:
        """License of the original, as its model card names it; empty where nothing does."""
        return ""

    @property
    def predicts_loss(self) -> bool:
        """Whether predicted losses are in the unit of the measured ones."""
        return METHODS.get(self.recipe.method).predicts_loss

    @property
    def judged_key(self) -> str:
        """Hash of the data that the accuracy figures are about."""
        raise NotImplementedError

    def write_judged(self, folder: Path) -> Path:
        """Write the data that the bundle is judged on into a folder; return the file."""
        raise NotImplementedError

    @property
    def max_drop(self) -> float:
        asked = self.settings.max_drop
        return profile_drop(self.device, self.task) if asked is None else asked


@dataclass(frozen=True)
class DenseExport:
    """The original model as ONNX.

    Attributes:
        folder: folder of the stage.
        traced: graph with unpacked linears.
        bundle: finished folder; of a model, fused and in float32.
        parity: comparison of its answers with the original's.
    """

    folder: Path
    traced: Path
    bundle: ExportBundle
    parity: DenseParity


class Costs(Protocol):
    """What the linears of a subject cost when they are compressed."""

    @property
    def spectra(self) -> SpectrumTable:
        """Predicted loss of every group, at every rank and precision."""
        ...


S = TypeVar("S", bound=Subject, covariant=True)
C = TypeVar("C", bound=Costs, covariant=True)


@dataclass(frozen=True)
class Planned(Generic[S, C]):
    """A plan, and everything that it came from.

    Attributes:
        subject: original and settings.
        dense: original as ONNX.
        costs: predicted losses of its linears.
        search: maker of plans.
        budget: ledger of the device's memory.
        plan: form, rank and precision of every linear.
        loss_factor: measured over predicted loss of the plan; None where it was not measured.
    """

    subject: S
    dense: DenseExport
    costs: C
    search: Search
    budget: Budget
    plan: Plan
    loss_factor: float | None = None

    @property
    def spectra(self) -> SpectrumTable:
        return self.costs.spectra


def make_search(
    subject: Subject, spectra: SpectrumTable, weights: tuple[WeightPrecision, ...] = ()
) -> Search:
    """List what every linear may become; in all precisions of the subject, or in ``weights``."""
    return prepare(
        subject.planned_groups,
        spectra,
        subject.recipe,
        subject.precision,
        subject.device.rank_multiple,
        weights or subject.weights,
        subject.device.provider == "cpu",
    )
