"""Where a bundle is made: there is room for it, and nothing half-finished is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgelr.core.cache import replace_folder, require_space, unfinished
from edgelr.core.errors import InputError
from edgelr.core.run import Run


@dataclass(frozen=True)
class Staging:
    """Where a bundle is made: ``bundle`` becomes the result, ``scratch`` goes away."""

    bundle: Path
    scratch: Path

    @property
    def answers(self) -> Path:
        """File of reference answers, with which a source proves what it wrote."""
        return self.scratch / "answers.npz"


def model_room(parameters: int) -> tuple[int, int]:
    """Estimate the bytes that the cache and the bundle of a model in torch take at most.

    A dense export (twice while it is written), Grams, full-rank factors; bundle and twin.
    """
    return 4 * 8 * parameters, 4 * 3 * parameters


def require_room(room: tuple[int, int], out: Path | None, run: Run) -> None:
    """Refuse to start what the disks cannot hold.

    Args:
        room: bytes that the cache and the bundle take at most.
        out: folder of the bundle, if one is written.
        run: cache of the stages.
    """
    require_space(run.cache.root, room[0], "The cache of this model")
    require_space(out or run.cache.root, room[1], "The bundle")


@contextmanager
def staging(out: Path, force: bool) -> Iterator[Staging]:
    """Give a folder that becomes ``out`` in one step, if the block ends well."""
    out = out.resolve()
    with unfinished(out) as root:
        place = Staging(root / "bundle", root / "scratch")
        place.bundle.mkdir()
        place.scratch.mkdir()
        yield place
        if out.exists() and not force and any(out.iterdir()):
            raise InputError(f"{out} was filled by another run meanwhile; --force replaces it.")
        replace_folder(place.bundle, out)
