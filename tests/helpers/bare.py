"""An environment like a board's: the wheel, the packages that it asks for, and a runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT


def build(target: str, source: Path, out: Path) -> Path:
    """Build the sdist or the wheel of a source tree, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def install_bare(folder: Path, *extra: str) -> Path:
    """Make an environment that holds the wheel, what its metadata asks for, and nothing more.

    Args:
        folder: empty; gets the wheel and the environment.
        extra: distributions that are installed beside it.

    Returns:
        The interpreter.
    """
    (folder / "wheel").mkdir()
    wheel = build("wheel", ROOT, folder / "wheel")
    venv.create(folder / "board", with_pip=False, symlinks=True)
    (site,) = (folder / "board").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (metadata,) = site.glob("edgelr-*.dist-info")
    for found in needed([*wanted(Distribution.at(metadata)), *extra]):
        link(found, site)
    return folder / "board" / "bin" / "python"


def wanted(found: Distribution) -> list[str]:
    """Name the distributions that one asks for here, without its extras."""
    each = map(Requirement, found.requires or ())
    return [one.name for one in each if one.marker is None or one.marker.evaluate({"extra": ""})]


def needed(names: list[str]) -> Iterator[Distribution]:
    """Find distributions of these names, and all that they ask for."""
    seen: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            found = distribution(name)
            names += wanted(found)
            yield found


def link(found: Distribution, site: Path) -> None:
    """Link what a distribution has in its ``site-packages``."""
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        target = Path(str(found.locate_file(top)))
        if not (site / top).exists():
            (site / top).symlink_to(target)


def run_bare(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of the environment, with nothing of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = kept | {"EDGELR_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(python), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
