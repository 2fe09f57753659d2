"""``edgelr validate``: judge a finished bundle again, possibly on another text."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.bundle import MANIFEST, ExportBundle, read_bundle
from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.data.labels import truth_notes
from edgelr.data.text import DEFAULT_TEXT
from edgelr.device.gate import make_gate
from edgelr.runtime import calls
from edgelr.runtime.requests import Execution
from edgelr.stages.source import open_source


def validate_again(
    bundle: ExportBundle,
    against: str | None,
    data: Path | None,
    max_drop: float | None,
    provider: str,
    run: Run,
) -> Validation:
    """Compare a bundle with its original.

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


def _reference(bundle: ExportBundle, against: str | None, run: Run) -> ExportBundle:
    if against is not None and (Path(against) / MANIFEST).exists():
        return read_bundle(Path(against))
    source = against or bundle.manifest.source
    settings = make_settings(
        model=source, revision=bundle.manifest.revision, task=bundle.manifest.task
    )
    found = open_source(settings).dense_bundle(settings, run)
    if against is None and found.manifest.digest != bundle.manifest.digest:
        raise InputError(
            f"{source} has changed since the bundle was made (digest {found.manifest.digest}, then "
            f"{bundle.manifest.digest}). Name the original model with --against."
        )
    return found
