"""Folders of sentence-transformers whose Transformer lies in a folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.model.architecture import MODULES
from edgelr.model.checkpoints.folders import WEIGHTS, carried_files, carry, link
from edgelr.model.sentence_modules import transformer_folder
from edgelr.model.small_files import matching


def with_transformer(folder: Path, cache: Cache) -> Path:
    """Give a folder with the files of its Transformer in itself: it, where they are there."""
    inner = transformer_folder(folder)
    if inner == folder or not inner.is_dir():
        return folder
    weights = matching(inner, WEIGHTS)
    own = {path for path in inner.glob("*") if path.is_file()}
    files = carried_files(folder)
    changes = [(path.name, path.stat().st_mtime_ns) for path in sorted(own)]
    key = digest(
        "transformer", str(folder.resolve()), file_digest(sorted(set(files) - own)), changes
    )

    def build(out: Path) -> None:
        for path in own:
            link(path, out) if path in weights else shutil.copyfile(path, out / path.name)
        carry(folder, out, left=own)
        modules = json.loads((out / MODULES).read_text(encoding="utf-8"))
        modules[0]["path"] = ""
        (out / MODULES).write_text(json.dumps(modules), encoding="utf-8")

    return cache.stage("model", key, build)[0]
