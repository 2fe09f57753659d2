"""The dense linears of a model, alone and in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgelr.core.vocabulary import GroupKind


@dataclass(frozen=True, slots=True)
class LinearSite:
    """One dense linear of the model, ``y = x @ weight.T + bias``.

    ``input_name`` names the distinct input that the site reads: sites with the same name see the
    same tensor (query, key and value, for instance) and share one input Gram.
    ``positions_per_token`` tells how often it runs for each token that is counted: once, but in
    models whose stages see an image at several resolutions. Of a model with an encoder and a
    decoder, ``reads_source`` tells those that run on the positions of the source: the encoder's,
    and the keys and values of cross attention; of one that compares images with prompts, those that
    run on the prompts. A convolution is a linear on the patches that its
    ``kernel``, height and width, covers.
    """

    name: str
    in_features: int
    out_features: int
    has_bias: bool
    role: str
    block: int | None
    input_name: str
    positions_per_token: float = 1.0
    reads_source: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of the dense weight; the bias is never compressed."""
        return self.in_features * self.out_features


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """One linear and its plain spectrum, without any data.

    ``effective_rank`` is the exponential of the spectrum's entropy (Roy and Vetterli, 2007);
    ``half_energy_rank`` is the number of components that hold half of the squared norm; ``tail``
    the share of components below a tenth of the largest, large where the spectrum has a heavy
    tail; ``spectrum`` a few singular values over the largest. ``component`` tells WeLore's
    low-rank components (LRC) from the others, and ``rank`` what it would keep.
    """

    name: str
    in_features: int
    out_features: int
    reads: str
    effective_rank: float
    half_energy_rank: int
    tail: float
    spectrum: tuple[float, ...]
    component: Literal["LRC", "N-LRC"]
    rank: int


@dataclass(frozen=True, slots=True)
class SiteGroup:
    """Sites factorized together: they share one ``down``, so a rank belongs to a group.

    ``kind`` tells what they have in common: nothing, for a site alone (``one``); the tensor that
    they read (``input``: query, key and value); their role in neighbouring blocks (``blocks``,
    Basis Sharing, arXiv:2410.03765); or one matrix that serves the first as it is and the second
    transposed (``tied``, arXiv:2401.16438). A ``table`` of embeddings is gathered from, a
    ``tied_table`` also multiplied with.
    """

    name: str
    sites: tuple[LinearSite, ...]
    kind: GroupKind = "one"

    @property
    def in_features(self) -> int:
        return self.sites[0].in_features

    @property
    def out_features(self) -> int:
        """Outputs of all sites together; a tied pair has those of its first site."""
        if self.kind == "tied":
            return self.sites[0].out_features
        return sum(site.out_features for site in self.sites)

    @property
    def parameters(self) -> int:
        """Parameters of the dense weights of all sites."""
        return sum(site.parameters for site in self.sites)
