"""Factors of a linear, and decompositions that give factors of every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelr.core.vocabulary import Axis

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LowRank:
    """``x @ down @ up``. Shapes: ``down (in_features, rank)``, ``up (rank, out_features)``.

    ``shared`` names the group whose sites all have this very ``down``; None for a site alone.
    """

    down: Tensor
    up: Tensor
    shared: str | None = None


@dataclass(frozen=True, slots=True)
class Pivoted:
    """The same matrix as a ``LowRank``, ``rank**2`` parameters cheaper (PIFA, arXiv:2501.19090).

    With ``axis="rows"`` some outputs are linear in the others:
    ``z = x @ first``; ``y = concat(z, z @ second)[..., argsort(order)]``; shapes ``first
    (in_features, rank)``, ``second (rank, out_features - rank)``, ``order (out_features,)``.

    With ``axis="columns"`` the inputs are mixed before they are projected:
    ``p = x[..., order]``; ``y = (p[..., :rank] + p[..., rank:] @ first) @ second``; shapes
    ``first (in_features - rank, rank)``, ``second (rank, out_features)``, ``order (in_features,)``.
    """

    axis: Axis
    first: Tensor
    second: Tensor
    order: Tensor
    shared: str | None = None  # group whose sites have the same ``first`` and ``order``


@dataclass(frozen=True, slots=True)
class Tied:
    """One matrix for two linears: ``x @ weight``, or ``x @ weight.T`` where ``transposed``.

    Shape: ``weight (in_features, out_features)`` of the first of the two, which ``shared`` names.
    """

    weight: Tensor
    transposed: bool
    shared: str


@dataclass(frozen=True, slots=True)
class Kronecker:
    """``weight = sum_k kron(left[k], right[k])`` (Van Loan and Pitsianis, 1993).

    Shapes: ``left (terms, m1, n1)``, ``right (terms, m2, n2)`` with ``m1 * m2 = out_features`` and
    ``n1 * n2 = in_features``.
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True, slots=True)
class Dense:
    """A whole weight that was rounded: ``x @ weight``, ``weight (in_features, out_features)``."""

    weight: Tensor


Factors = LowRank | Pivoted | Tied | Kronecker | Dense
FactorSet = dict[str, Factors]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Factors of one group at every rank, with their predicted losses.

    Attributes:
        down: first factor, ``(in_features, k)``; its first ``r`` columns are that of rank ``r``.
        up: second factor, ``(k, out_features)``; its first ``r`` rows are that of rank ``r``.
        loss: predicted loss by number of kept components, in the method's metric, ``(k + 1,)``.
    """

    down: Tensor
    up: Tensor
    loss: Tensor

    def truncate(self, rank: int) -> LowRank:
        """Keep the first ``rank`` components."""
        return LowRank(self.down[:, :rank].contiguous(), self.up[:rank].contiguous())


@dataclass(frozen=True, slots=True)
class Reweighted:
    """Components in the order of their worth; dropping some rescales those that are kept.

    With the scale of every component as a parameter, all of them one in the dense weight, the loss
    has the Fisher information ``F``. Scales that differ from one by ``d`` cost ``1/2 d^T F d``.

    Attributes:
        down: first factor, ``(in_features, k)``; its first ``r`` columns are kept at rank ``r``.
        up: second factor, ``(k, out_features)``; its first ``r`` rows are kept.
        root: lower triangle with ``root @ root.T = F``, in the order of the components, ``(k, k)``.
        loss: ``(k + 1,)``; predicted loss of the best scales when ``r`` components are kept. Less
            than that of the factors only where a best scale is negative, which is rare.
    """

    down: Tensor
    up: Tensor
    root: Tensor
    loss: Tensor

    def scales(self, rank: int) -> Tensor:
        """Solve for the best scales of the first ``rank`` components, ``(rank,)``, not negative.

        ``1 + F_SS^-1 F_SC 1``; with the rows of ``F = L L^T`` in order, ``L_SS^-T`` times the sums
        of the first columns of ``L``.
        """
        from torch.linalg import solve_triangular

        root = self.root.double()
        sums = root.sum(0)[:rank, None]
        best: Tensor = solve_triangular(root[:rank, :rank].T, sums, upper=True)[:, 0]
        return best.clamp_min(0.0).to(self.up)

    def truncate(self, rank: int) -> LowRank:
        """Keep the first ``rank`` components, each by its scale."""
        up = self.up[:rank] * self.scales(rank)[:, None]
        return LowRank(self.down[:, :rank].contiguous(), up)


@dataclass(frozen=True, slots=True)
class Fits:
    """Factors of some ranks, each fitted on its own: for methods without nested components.

    Attributes:
        fits: factors by rank.
        loss: predicted loss by rank, ``(k + 1,)``; infinite where there is no fit.
    """

    fits: dict[int, LowRank]
    loss: Tensor

    def truncate(self, rank: int) -> LowRank:
        """Return the fit of ``rank``."""
        return self.fits[rank]


@dataclass(frozen=True, slots=True)
class KroneckerTerms:
    """Kronecker products in the order of their weight; a "rank" is a number of terms.

    Attributes:
        left: left factor of every term, ``(k, m1, n1)``.
        right: right factor of every term, ``(k, m2, n2)``.
        loss: predicted loss by number of kept terms, ``(k + 1,)``.
    """

    left: Tensor
    right: Tensor
    loss: Tensor

    def truncate(self, rank: int) -> Kronecker:
        """Keep the first ``rank`` terms."""
        return Kronecker(self.left[:rank].contiguous(), self.right[:rank].contiguous())


@dataclass(frozen=True, slots=True)
class SharedBasis:
    """One basis for several sites that read different inputs, each with its own best ``up``.

    Attributes:
        down: basis, ``(in_features, k)``; its first ``r`` columns are that of rank ``r``.
        mixes: upper triangles ``(sites, k, k)`` that make the basis orthonormal in the metric
            of each site's inputs, so that its coefficients are nested too.
        coefficients: coefficients of all sites in that basis, side by side, ``(k, out_features)``.
        loss: predicted loss of all sites together, by rank, ``(k + 1,)``.
    """

    down: Tensor
    mixes: Tensor
    coefficients: Tensor
    loss: Tensor

    def truncate(self, rank: int) -> LowRank:
        """Keep the first ``rank`` basis vectors; ``up`` holds those of the sites side by side."""
        from torch import concat

        parts = self.coefficients[:rank].chunk(len(self.mixes), dim=1)
        ups = [mix[:rank, :rank] @ part for mix, part in zip(self.mixes, parts, strict=True)]
        return LowRank(self.down[:, :rank].contiguous(), concat(ups, dim=1))


@dataclass(frozen=True, slots=True)
class TiedFit:
    """The matrix that serves two linears best: ``weight (in_features, out_features)``.

    ``loss`` is that of the only choice: infinite everywhere but at full rank, ``(k + 1,)``.
    """

    weight: Tensor
    loss: Tensor


Decomposed = Decomposition | Reweighted | Fits | KroneckerTerms | SharedBasis | TiedFit
