"""Derivatives of the loss with respect to the scales of components, one per token, on the disk.

At one token, the derivative for component ``k`` is ``p_k = (x . down_k) (up_k . g)``, with ``x``
the input of the linear and ``g`` the gradient of the loss at its output. There are tens of
thousands of components, so that their second moment ``E[p p^T]`` is never formed: a product with it
reads the file once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from edgelr.compress.factors import FactorSet, LowRank

PIECE_NUMBERS = 2**24  # derivatives in memory at once
LARGEST_STORED = 60000.0  # just below what float16 holds
_FILE = "derivatives.float16"


@dataclass
class Derivatives:
    """Derivatives of the loss at every token, or text, in a file.

    Attributes:
        path: file of ``p / unit``, ``(rows, k)`` float16.
        columns: columns of every site, by its name.
        unit: approximate root mean square of every ``p_k``, ``(k,)``.
        rows: number of tokens, or of texts.
    """

    path: Path
    columns: dict[str, slice]
    unit: Tensor
    rows: int

    def pieces(self) -> Iterator[Tensor]:
        """Yield ``p / unit`` of as many rows as fit in memory."""
        width = len(self.unit)
        stored = np.memmap(self.path, np.float16, "r", shape=(self.rows, width))
        step = max(1, PIECE_NUMBERS // width)
        for start in range(0, self.rows, step):
            yield torch.from_numpy(np.array(stored[start : start + step])).float()

    def mean(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over all rows, ``(k,)``; ``of`` sums over the rows of a piece."""
        total = torch.zeros(len(self.unit))
        for piece in self.pieces():
            total += of(piece)
        return total / self.rows

    def sizes(self) -> Tensor:
        """Root mean square of every column, ``(k,)``."""
        squares = self.mean(lambda p: p.square().sum(0))
        return squares.sqrt().clamp_min(torch.finfo(torch.float16).tiny)

    def normal(self, v: Tensor) -> Tensor:
        """Mean of ``p p^T v``."""
        return self.mean(lambda p: p.T @ (p @ v))


@dataclass
class DerivativesWriter:
    """Collects the derivatives of a batch, linear by linear, and writes them.

    Attributes:
        file: file that receives ``p / unit``.
        columns: columns of every site, by its name.
        width: number of columns.
        unit: root mean square of every ``p_k`` in the first batch, ``(k,)``.
        p: derivatives of the running batch, ``(rows, k)``.
        rows: number of rows that were written.
    """

    file: BinaryIO
    columns: dict[str, slice]
    width: int
    unit: Tensor | None = None
    p: Tensor | None = None
    rows: int = 0

    @classmethod
    def into(cls, folder: Path, factors: FactorSet) -> DerivativesWriter:
        """Begin a file in ``folder``, with a column for every component of ``factors``."""
        columns, width = {}, 0
        for name, each in products_of(factors).items():
            columns[name] = slice(width, width := width + each.down.shape[1])
        folder.mkdir(parents=True, exist_ok=True)
        return cls((folder / _FILE).open("wb"), columns, width)

    def add(self, name: str, p: Tensor) -> None:
        """Add ``p (rows, r)`` of one linear."""
        if self.p is None:
            self.p = torch.zeros(len(p), self.width)
        self.p[:, self.columns[name]] = p

    def flush(self) -> None:
        """Write the running batch, to which every linear has added its part."""
        assert self.p is not None
        if self.unit is None:
            size = self.p.square().mean(0).sqrt()
            self.unit = size.clamp_min(max(1e-6 * float(size.max()), 1e-30))
        stored = (self.p / self.unit).clamp(-LARGEST_STORED, LARGEST_STORED).half()
        self.file.write(stored.numpy().tobytes())
        self.rows += len(self.p)
        self.p = None

    def finish(self) -> Derivatives:
        """Close the file."""
        self.file.close()
        assert self.unit is not None
        return Derivatives(Path(self.file.name), self.columns, self.unit, self.rows)


def products_of(factors: FactorSet) -> dict[str, LowRank]:
    """The factors that have components to scale."""
    return {name: each for name, each in factors.items() if isinstance(each, LowRank)}
