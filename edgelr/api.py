"""The Python API: what the command line does, with the same words and the values of its reports.

Every function prints nothing, raises ``EdgelrError`` where a user can mend something, and tells a
listener of its progress: the one that is given, a progress bar in a notebook, or nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.problems import told_problems

if TYPE_CHECKING:
    from edgelr.core.listener import Listener
    from edgelr.core.measurement import Comparison, Measurement
    from edgelr.core.plan import Plan
    from edgelr.core.report import Report
    from edgelr.core.results import Validation
    from edgelr.core.run import Run
    from edgelr.core.settings import Settings
    from edgelr.core.sites import SiteSummary
    from edgelr.report.pareto import Sweep
    from edgelr.stages.source import Source


@told_problems()
def export(
    model: Any,
    profile: str = "jetson",
    out: str | Path | None = None,
    plan: str | Path | None = None,
    force: bool = False,
    listener: Listener | None = None,
    **options: Any,
) -> Report:
    """Compress a model for one device, prove that it still works, and write a bundle.

    Args:
        model: Hub id, model folder, ``.gguf`` or ``.onnx`` file, ``package.module:factory``; or
            ``(model, tokenizer)`` or ``(model, processor)`` of transformers in memory.
        profile: name of a device, or a ``.yaml`` file.
        out: folder of the bundle; None names it after model and profile, as the command line does.
        plan: plan file to follow, possibly edited.
        force: whether a bundle that is already there is replaced.
        listener: receiver of progress and notes.
        options: further options of ``edgelr export`` by their names and in its words, such as
            ``keep=0.8`` or ``keep="80%"``, ``max_size="60MB"``, ``precision="int8"`` or
            ``calibration=("text.txt",)``; and ``resume=False`` to use no finished
            stages of earlier runs.

    Returns:
        The report. A bundle whose gate failed is written, and ``report.validation.passed`` is
        false: nothing is raised.

    Raises:
        EdgelrError: something that the user can mend.
    """
    from edgelr import pipeline
    from edgelr.device.profile import load_profile

    with _run(listener, options, f"edgelr.export({_named(model)!r}, ...)") as run:
        settings, source = _original(model, profile, options, run)
        folder = Path(out or settings.out or _folder_of(settings))
        given = None if plan is None else Path(plan)
        device = load_profile(profile)
        return pipeline.export(settings, device, folder, run, force, given, source)


@told_problems()
def plan(
    model: Any,
    profile: str = "jetson",
    out: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Plan:
    """Decide what every linear becomes.

    Args:
        model: original, as ``export`` takes it.
        profile: name of a device, or a ``.yaml`` file.
        out: file to write the plan to, to be edited and exported; None writes none.
        listener: receiver of progress and notes.
        options: further options of ``edgelr plan``; see ``export``.
    """
    from edgelr import pipeline
    from edgelr.device.profile import load_profile
    from edgelr.planning.files import write_plan
    from edgelr.stages.preflight import require_new_file

    if out is not None:
        require_new_file(Path(out))
    with _run(listener, options, f"edgelr.plan({_named(model)!r}, ...)") as run:
        settings, source = _original(model, profile, options, run)
        made = pipeline.plan(settings, load_profile(profile), run, source=source)
    if out is not None:
        write_plan(made.plan, Path(out))
    return made.plan


@told_problems()
def inspect(model: Any, listener: Listener | None = None, **options: Any) -> list[SiteSummary]:
    """Summarize the linears of a model: shapes, shared inputs, spectra, and which are low-rank.

    Args:
        model: original, as ``export`` takes it.
        listener: receiver of progress and notes.
        options: options of ``edgelr inspect``: ``task``, ``keep``, ``revision`` and so on.
    """
    from edgelr.commands.inspect import inspect_sites

    with _run(listener, options, "edgelr.inspect") as run:
        settings, source = _original(model, "generic-cpu", options, run)
        return inspect_sites(settings, run, source)


@told_problems()
def validate(
    bundle: str | Path,
    against: str | Path | None = None,
    data: str | Path | None = None,
    max_drop: float | str | None = None,
    provider: str = "cpu",
    listener: Listener | None = None,
) -> Validation:
    """Compare a bundle with its original again.

    Args:
        bundle: folder that ``export`` wrote.
        against: original model, or a folder with its dense export; None takes the bundle's source.
        data: evaluation text, images or samples; None takes what the command line does.
        max_drop: limit that replaces the bundle's own, such as ``0.05`` or ``"5%"``.
        provider: ``"cpu"`` or ``"cuda"``.
        listener: receiver of progress and notes.
    """
    from edgelr.commands.validate import validate_again
    from edgelr.core.bundle import read_bundle
    from edgelr.core.units import drop, read_option

    with _run(listener, {}, "edgelr.validate") as run:
        return validate_again(
            read_bundle(Path(bundle), verify=True),
            None if against is None else str(against),
            None if data is None else Path(data),
            None if max_drop is None else read_option("max_drop", drop, max_drop),
            provider,
            run,
        )


@told_problems()
def measure(
    bundle: str | Path,
    against: str | Path | None = None,
    provider: str = "cpu",
    threads: int | None = None,
    tokens: int = 128,
    context: int | None = None,
    repetitions: int = 10,
) -> Measurement | Comparison:
    """Measure latency and memory of a bundle on this machine, in a fresh process.

    Args:
        bundle: folder that ``export`` wrote.
        against: another bundle or dense export to measure in turns.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core.
        tokens: tokens of a prefill.
        context: tokens before a decode; None takes those of the prefill.
        repetitions: timed runs of each phase.

    Returns:
        The measurement of one bundle, or the comparison of two.
    """
    from edgelr.core.bundle import read_bundle
    from edgelr.runtime import measure as runtime
    from edgelr.runtime.requests import Execution, PhaseSizes

    sizes = PhaseSizes((tokens,), (context or tokens,))
    options = (Execution(provider, threads), sizes, repetitions)
    given = read_bundle(Path(bundle))
    if against is None:
        return runtime.measure_one(given, *options)
    return runtime.measure(read_bundle(Path(against)), given, *options)


@told_problems()
def sweep(
    model: Any,
    profiles: Sequence[str] = ("jetson",),
    keeps: Sequence[float | str] = (),
    precisions: Sequence[str] = (),
    out: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Sweep:
    """Compress a model for several devices, precisions and sizes, and compare the bundles.

    Args:
        model: original, as ``export`` takes it.
        profiles: names of devices, or ``.yaml`` files.
        keeps: shares to keep, such as ``0.8`` or ``"80%"``; none takes the smallest plan inside
            the gate.
        precisions: precisions of the weights; none takes the device's.
        out: folder of bundles and tables; None names it after the model.
        listener: receiver of progress and notes.
        options: further options of ``edgelr sweep``; ``rivals=False`` leaves the original in int8
            and int4 out.
    """
    from edgelr.commands import sweep as sweeps
    from edgelr.core.units import read_option, share

    with _run(listener, options, f"edgelr.sweep({_named(model)!r}, ...)") as run:
        settings, source = _original(model, profiles[0], options, run)
        question = sweeps.SweepRequest(
            settings,
            tuple(dict.fromkeys(profiles)),
            sweeps.read_precisions(",".join(precisions) or None),
            tuple(read_option("keeps", share, keep) for keep in keeps) or (None,),
        )
        folder = Path(out or f"sweep-{_stem(settings.model)}")
        return sweeps.sweep(question, folder, run, source)


@contextmanager
def _run(listener: Listener | None, options: dict[str, Any], command: str) -> Iterator[Run]:
    """Make the value that the stages share; ``resume`` is taken out of the options."""
    from edgelr.core.cache import Cache, default_root
    from edgelr.core.listener import Silent
    from edgelr.core.run import Run

    cache = Cache(default_root(), reuse=options.pop("resume", True))
    if listener is not None or not _in_notebook():
        yield Run(cache, listener or Silent(), command=command)
        return
    from edgelr.report.live import LiveListener

    with LiveListener(quiet=False) as live:
        yield Run(cache, live, command=command)


def _original(
    model: Any, profile: str, options: dict[str, Any], run: Run
) -> tuple[Settings, Source | None]:
    """Read the options, and open a model that is in memory; others are opened by their names."""
    from edgelr.core.settings import make_settings

    settings = make_settings(**{**options, "model": _named(model), "profile": profile})
    if isinstance(model, (str, Path)):
        return settings, None
    from edgelr.model.load import load_in_memory
    from edgelr.stages.sources.transformers import ModelSource

    return settings, ModelSource(load_in_memory(model, settings.model, run.cache, settings.task))


def _named(model: Any) -> str:
    """Name a model for reports: as it was given, or by its class."""
    if isinstance(model, (str, Path)):
        return str(model)
    first = model[0] if isinstance(model, tuple) and model else model
    return f"{type(first).__name__} in memory"


def _stem(model: str) -> str:
    return Path(model.split(":")[-1]).stem.lower().replace(" ", "-") or "model"


def _folder_of(settings: Settings) -> str:
    return f"{_stem(settings.model)}-{Path(settings.profile).stem}"


def _in_notebook() -> bool:
    """Tell whether this process answers cells of a notebook, without importing IPython."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
