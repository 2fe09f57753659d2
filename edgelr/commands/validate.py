"""``edgelr validate``: judge a finished bundle again, possibly on another text.

Where the original cannot be read, as on a board, the bundle is compared with the answers that it
gave at the export, which travel with it.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from edgelr.core.bundle import MANIFEST, ExportBundle, read_bundle
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.problems import install_command
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.core.settings import Settings, make_settings
from edgelr.data.labels import truth_notes
from edgelr.data.text import DEFAULT_TEXT
from edgelr.device.gate import make_gate
from edgelr.report.reading import read_reports
from edgelr.runtime import calls
from edgelr.runtime.requests import Execution
from edgelr.stages.source import SOURCES, kind_of_source, open_source


def validate_again(
    bundle: ExportBundle,
    against: str | None,
    data: Path | None,
    max_drop: float | None,
    provider: str,
    run: Run,
) -> Validation:
    """Compare a bundle with its original, or with its answers at the export.

    The latter where nothing is asked for, and the original cannot be read here.

    Args:
        bundle: bundle to judge, as it was written: a float16 file in float16.
        against: the original model, or a folder with its dense export; None takes the bundle's
            own source.
        data: evaluation text, or images, and their true labels (``edgelr.data.labels``); None
            takes the text that ships with Python. Of a graph that was an ``.onnx`` file: an
            ``.npz`` of inputs; None takes the samples in the bundle.
        max_drop: overrides the limit of the bundle's profile.
        provider: ``cpu`` or ``cuda``.
        run: cache, listener, clock and seed.
    """
    if against is None and (problem := _unreadable(bundle)):
        if data is None and max_drop is None:
            return _with_stored_answers(bundle, provider, problem)
        raise EnvironmentProblem(
            f"--data and --max-drop compare with the original, and {problem} Name its dense "
            f"export with --against; or leave both away, to compare with the answers in the bundle."
        )
    reference = _reference(bundle, against, run)
    metrics = calls.accuracy(reference, bundle, data, Execution(provider), progress=run.progress)
    reads = MODALITIES.get(bundle.manifest.modality).reads
    limit = bundle.manifest.max_drop if max_drop is None else max_drop
    return Validation(
        parity=None,
        metrics=metrics,
        gate=None if limit is None else make_gate(bundle.manifest.task, metrics, limit),
        precision=bundle.manifest.precision,
        provider=provider,
        text=str(data or (DEFAULT_TEXT if reads == "text" else f"{reads}s of the bundle")),
        notes=truth_notes(bundle.manifest.task, metrics),
    )


def _with_stored_answers(bundle: ExportBundle, provider: str, problem: str) -> Validation:
    """Compare with the answers at the export, beside the figures that were found there."""
    parity = calls.same_answers(bundle, Execution(provider))
    found = read_reports(bundle.folder)[0].validation
    told = (
        f"The original was not read: {problem} The answers are compared with those of the export, "
        f"and accuracy is what was measured then."
    )
    if found is None:
        return Validation(parity, (), None, bundle.manifest.precision, provider, "nothing", (told,))
    return replace(
        found, parity=parity, provider=provider, text=f"{found.text}, at the export", notes=(told,)
    )


def _unreadable(bundle: ExportBundle) -> str:
    """Say why the original of a bundle cannot be read here; empty where it may be."""
    settings = _settings(bundle, bundle.manifest.source)
    missing = [
        name for name in SOURCES.get(kind_of_source(settings)).needs if find_spec(name) is None
    ]
    if missing:
        return f"the package {missing[0]} is not installed ({install_command(missing[0])})."
    path = Path(settings.model)
    is_file = path.suffix in (".onnx", ".gguf") or path.is_absolute()
    return f"{path} is not here." if is_file and not path.exists() else ""


def _settings(bundle: ExportBundle, source: str) -> Settings:
    return make_settings(model=source, revision=bundle.manifest.revision, task=bundle.manifest.task)


def _reference(bundle: ExportBundle, against: str | None, run: Run) -> ExportBundle:
    if against is not None and (Path(against) / MANIFEST).exists():
        return read_bundle(Path(against))
    source = against or bundle.manifest.source
    settings = _settings(bundle, source)
    found = open_source(settings).dense_bundle(settings, run)
    if against is None and found.manifest.digest != bundle.manifest.digest:
        raise InputError(
            f"{source} has changed since the bundle was made (digest {found.manifest.digest}, then "
            f"{bundle.manifest.digest}). Name the original model with --against."
        )
    return found
