"""Give the kept components their best scales, so that they make up for the dropped ones.

The closed-form relative of learned importance (Safari and Hutter, 2026, arXiv:2606.23568), for
factors that are chosen already. At one token, the derivative of the loss with respect to the scale
of component ``k`` is ``p_k = (x . down_k) (up_k . g)``, ``g`` the gradient of the loss at the
linear's output, and that with respect to all that was dropped is ``q = g . (W - W') x``. To second
order the scales ``s`` cost ``1/2 E[(q - sum_k (s_k - 1) p_k)^2]``: least squares with one unknown
per component. The solution is folded into ``up``, so that nothing grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgelr.factors import FactorSet, LowRank
from edgelr.importance.surgery import pair_products, shrunk
from edgelr.statistics import fisher_pass

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.calibration import Calibration
    from edgelr.types import LoadedModel

Progress = Callable[[str, int, int], None]

LARGEST_SCALE = 2.0  # a scale beyond is noise: those of a real model are between 0.8 and 1.4


def rescale(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    seed: int,
    progress: Progress,
) -> FactorSet:
    """Scale the components of every ``LowRank`` product; others stay as they are.

    Args:
        model: dense; its gradients are those of the Fisher information, as in ``statistics``.
        factors: products, as ``truncate`` makes them.
        parts: calibration texts; where there are several, each weighs by its tokens.
        seed: of the sampled labels or probes.
        progress: called with ``("scales", done, total)`` in tokens.
    """
    whole = model.exporter.loss == "embedding"
    sums = {name: _Sums(each, whole) for name, each in factors.items() if isinstance(each, LowRank)}
    modules = {name: model.module.get_submodule(name) for name in sums}
    generator = torch.Generator().manual_seed(seed)

    def watch(name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        plain = output if module.bias is None else output - module.bias
        x, plain = x.detach(), plain.detach()
        output.register_hook(lambda gradient: sums[name].add(x, plain, gradient))

    fisher_pass(model, modules, watch, parts, generator, "scales", progress)
    scaled = {name: each.scaled() for name, each in sums.items()}
    return {name: scaled.get(name, each) for name, each in factors.items()}


@dataclass
class _Sums:
    """What is summed over the losses of one site; padding has no gradient, and adds nothing.

    Attributes:
        factors: of the site.
        whole: a text has one loss, and its tokens' derivatives are one derivative; else every
            token counts by itself.
        count: losses that were summed over.
        unit: about the root mean square of every ``p_k``, and of ``q`` at the end, ``(r + 1,)``:
            sums are taken in this unit.
        gram: of ``(p, q) (p, q)^T``, ``(r + 1, r + 1)``.
        pairs: of the products of two different squares of ``(p, q)``, all of them together.
    """

    factors: LowRank
    whole: bool
    count: int = 0
    unit: Tensor | None = None
    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    pairs: float = 0.0

    def add(self, x: Tensor, plain: Tensor, gradient: Tensor) -> None:
        """Add a batch.

        Args:
            x: the linear's input, ``(texts, tokens, in_features)``.
            plain: its output without the bias, ``(texts, tokens, out_features)``.
            gradient: of the loss at the output, ``(texts, tokens, out_features)``.
        """
        p = (x @ self.factors.down) * (gradient @ self.factors.up.T)
        q = (gradient * plain).sum(-1, keepdim=True) - p.sum(-1, keepdim=True)
        both = torch.cat([p, q], dim=-1)
        both = both.sum(1) if self.whole else both.flatten(0, -2)
        self.count += len(both)
        if self.unit is None:
            size = both.square().mean(0).sqrt()
            least = max(1e-6 * float(size.max()), torch.finfo(torch.float32).tiny)
            self.unit = size.clamp_min(least)
        both = both / self.unit
        self.gram = self.gram + both.T @ both
        self.pairs += pair_products(both)

    def scaled(self) -> LowRank:
        """Fold the best scales into ``up``.

        Correlations with what was dropped are shrunk by as much as those among the components:
        else the scales of components that resemble each other would all make up for the same.
        """
        if self.unit is None:
            return self.factors
        gram = shrunk(self.gram.double() / self.count, self.pairs / self.count, self.count)
        unit = self.unit.double()
        shift = torch.linalg.solve(gram[:-1, :-1], gram[:-1, -1]) * unit[-1] / unit[:-1]
        scales = (1 + shift).clamp(0, LARGEST_SCALE).float()
        return LowRank(self.factors.down, self.factors.up * scales[:, None], self.factors.shared)
