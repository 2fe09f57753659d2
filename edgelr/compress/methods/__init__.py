"""Decompositions: one published method per file, pure tensor functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgelr.compress.factors import Decomposed
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Form

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["input_gram", "output_gradient_gram"]
ErrorMetric = tuple["Tensor | None", "Tensor | None"]
"""``(G, H)``: replacing ``W`` by ``W - D`` costs ``1/2 tr(D^T G D H)``; None is the identity."""


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """Second moments of one site over the calibration tokens.

    Attributes:
        input_gram: mean of ``x x^T`` per token, ``(in_features, in_features)``, or None.
        output_gradient_gram: mean of ``g g^T`` per token, ``(out_features, out_features)``, where
            ``g`` is the gradient of the summed loss with respect to the site's output; or None.
        units_per_token: number of losses per token. A language model has one loss per token; an
            encoder one per text, so that the reciprocal of its mean length belongs here.
    """

    input_gram: Tensor | None
    output_gradient_gram: Tensor | None
    units_per_token: float = 1.0


@dataclass(frozen=True, slots=True)
class Method:
    """A decomposition, the statistics that it reads, and the metric that its losses are in.

    Attributes:
        decompose: function that factorizes ``weight (out_features, in_features)``, float64, at
            every rank, or at the ranks that it can.
        metric: error norm of a site, from its statistics: ``G (out, out)`` and ``H (in, in)``.
        needs: Grams that must be collected.
        paper: publication, with its year and arXiv id.
        forms: forms that its factors can take.
        predicts_loss: True where its losses are those of the model's own loss, in nats or cosine
            distance, and not of some distance between weights or outputs.
        nested: True where it is the best of every rank in its metric: components are nested.
    """

    decompose: Callable[[Tensor, SiteStatistics], Decomposed]
    metric: Callable[[SiteStatistics], ErrorMetric]
    needs: frozenset[Need]
    paper: str
    nested: bool = True
    forms: frozenset[Form] = frozenset({"dense", "low_rank", "pivoted", "tied"})
    predicts_loss: bool = False


METHODS: Registry[Method] = Registry(
    "method", package="edgelr.compress.methods", group="edgelr.methods"
)

__all__ = ["METHODS", "ErrorMetric", "Method", "Need", "SiteStatistics"]
