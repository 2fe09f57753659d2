"""Write the tests that travel with a bundle, so that it can be tested where edgelr is not."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.run import Run
from edgelr.report.usage import snippet
from edgelr.runtime import calls

FOLDER = "tests"


def write_tests(original: ExportBundle, bundle: ExportBundle, text: Path | None, run: Run) -> None:
    """Write ``tests/``: three files for pytest, and what they compare with.

    They need numpy, onnxruntime, pytest and, for text, tokenizers.

    Args:
        original: dense export.
        bundle: bundle that gets the tests.
        text: file that it was judged on; a graph's inputs are in the bundle.
        run: cache, listener, clock and seed.
    """
    folder = bundle.folder / FOLDER
    folder.mkdir()
    run.progress("tests", 0, 1)
    calls.write_references(original, bundle, text, folder)
    for name, source in {"conftest.py": "conftest", "test_files.py": "files"}.items():
        (folder / name).write_text(snippet(f"regression/{source}.py"), encoding="utf-8")
    run.progress("tests", 1, 1)
