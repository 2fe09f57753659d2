"""Are these the files that were exported, and did they pass then?

pytest tests
"""

import hashlib
from pathlib import Path
from typing import Any


def test_the_files_are_those_that_were_exported(folder: Path, manifest: Any) -> None:
    for file in manifest["files"]:
        found = hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest()
        assert found == file["sha256"], file["path"]


def test_the_bundle_passed_its_accuracy_gate(manifest: Any) -> None:
    assert manifest["gate_passed"]
