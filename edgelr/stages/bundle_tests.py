"""Write the tests that travel with a bundle, so that it can be tested where edgelr is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.bundle import ExportBundle
from edgelr.report.usage import snippet
from edgelr.runtime import calls as jobs

if TYPE_CHECKING:
    from edgelr.stages.subject import Listener

FOLDER = "tests"


def write_tests(
    original: ExportBundle, bundle: ExportBundle, text: Path | None, listener: Listener
) -> None:
    """Write ``tests/``: three files for pytest, and what they compare with.

    They need numpy, onnxruntime, pytest and, for text, tokenizers.

    Args:
        original: dense export.
        bundle: bundle that ships.
        text: source that it was judged on; None for a graph, whose inputs are in the bundle.
        listener: listener to progress.
    """
    folder = bundle.folder / FOLDER
    folder.mkdir()
    listener.progress("tests", 0, 1)
    jobs.write_references(original, bundle, text, folder)
    for name, source in {"conftest.py": "conftest", "test_files.py": "files"}.items():
        (folder / name).write_text(snippet(f"regression/{source}.py"), encoding="utf-8")
    listener.progress("tests", 1, 1)
