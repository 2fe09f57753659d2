"""The table of token embeddings, and a head that is tied to it: only their precision is chosen.

Row ``v`` is read wherever token ``v`` stands, and a tied head multiplies every last hidden state
with all rows. With ``f_v`` how often the token stands there, ``G`` the Gram of the gradients at the
embeddings, ``s_v`` the mean square of the gradient at logit ``v`` and ``H`` the Gram of the last
hidden states, an error of ``e_v`` in each row costs::

    1/2 sum_v f_v e_v^T G e_v + 1/2 sum_v s_v e_v^T H e_v

the same Fisher metric that linears are judged by, with the diagonal of what is as large as the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgelr.compress.block_quantized import Blocks, QuantizedLoss
from edgelr.compress.gradient_pass import fisher_pass
from edgelr.compress.grams import add_gram, mirrored
from edgelr.compress.methods.metric import damped
from edgelr.compress.rounding import ROUNDING
from edgelr.compress.stored_weights import write_group
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Progress, WeightPrecision
from edgelr.model.loaded import LoadedModel
from edgelr.model.token_table import tied_heads, token_table

if TYPE_CHECKING:
    from edgelr.data.calibration import Calibration

TABLE_TOKENS = 16384  # of calibration text: rows are many, but what they cost has few numbers
TABLE_DAMPING = 0.01  # of the mean diagonal
_FILE = "table.safetensors"


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Means over the tokens of a calibration text.

    Attributes:
        frequency: share of every token in the texts, ``(vocabulary,)``.
        gradient_gram: Gram of the gradients at the embeddings, ``(hidden, hidden)``.
        squares: squared gradients at the logits, ``(vocabulary,)``; zero without a tied head.
        input_gram: Gram of the inputs of the head, ``(hidden, hidden)``.
    """

    frequency: Tensor
    gradient_gram: Tensor
    squares: Tensor
    input_gram: Tensor

    def write(self, folder: Path) -> None:
        """Write all of it into ``folder``."""
        values = {each.name: getattr(self, each.name).contiguous() for each in fields(self)}
        save_file(values, folder / _FILE)


def read_table_statistics(folder: Path) -> TableStatistics:
    """Read the statistics that ``TableStatistics.write`` wrote."""
    return TableStatistics(**load_file(folder / _FILE))


def collect_table(
    model: LoadedModel, parts: list[Calibration], seed: int, progress: Progress
) -> TableStatistics:
    """Collect how much the loss depends on the rows of the table.

    Args:
        model: model in float32.
        parts: calibration texts; where there are several, each weighs by its tokens.
        seed: random seed of the sampled labels or probes.
        progress: function of ``("table statistics", done, total)`` in tokens.
    """
    table = token_table(model)
    sums = _Sums(*table.weight.shape)
    modules: dict[str, nn.Module] = {"table": table}
    modules |= tied_heads(model)

    def watch(name: str, _module: nn.Module, x: Tensor, output: Tensor) -> None:
        add = sums.read if name == "table" else sums.multiplied
        output.requires_grad_()
        x = x.detach()
        output.register_hook(lambda gradient: add(x, gradient.flatten(0, -2)))

    generator = torch.Generator().manual_seed(seed)
    fisher_pass(model, modules, watch, parts, generator, "table statistics", progress)
    return sums.means(sum(part.tokens for part in parts))


class _Sums:
    """Sums over the tokens of the texts, of which ``TableStatistics`` has the means."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        self.frequency, self.squares = torch.zeros(vocabulary), torch.zeros(vocabulary)
        self.gradient_gram, self.input_gram = (torch.zeros(hidden, hidden) for _ in range(2))
        self.judged = 0  # tokens at which a tied head has a loss

    def read(self, ids: Tensor, gradient: Tensor) -> None:
        """Add a batch of token ids, and the gradients ``(tokens, hidden)`` at their embeddings."""
        real = gradient.abs().sum(-1) > 0  # padding has no gradient
        add_gram(self.gradient_gram, gradient)
        self.frequency.index_add_(0, ids.flatten()[real], torch.ones(int(real.sum())))

    def multiplied(self, x: Tensor, gradient: Tensor) -> None:
        """Add inputs of a tied head, and the gradients ``(tokens, vocabulary)`` at its logits."""
        real = gradient.any(-1)  # a token that has no loss is not judged
        self.squares.add_(gradient.square().sum(0))
        add_gram(self.input_gram, x.flatten(0, -2)[real])
        self.judged += int(real.sum())

    def means(self, tokens: int) -> TableStatistics:
        """Divide the sums by the tokens of the texts, or by those that the head is judged by."""
        return TableStatistics(
            frequency=self.frequency / tokens,
            gradient_gram=mirrored(self.gradient_gram) / tokens,
            squares=self.squares / tokens,
            input_gram=mirrored(self.input_gram) / max(1, self.judged),
        )


def round_table(
    model: LoadedModel,
    known: TableStatistics,
    units_per_token: float,
    asked: tuple[str, Sequence[WeightPrecision]],
    site: LinearSite,
    folder: Path,
) -> None:
    """Write the table in each precision, and the loss that is predicted, in nats per loss term.

    Rows are rounded in the mean of their metrics ``f_v G + s_v H``, and judged each in its own.

    Args:
        model: dense model.
        known: how much the loss depends on the rows.
        units_per_token: losses per token.
        asked: name of the rounding, and the precisions.
        site: description of the table; see ``token_table.find_table``.
        folder: folder that receives the table; see ``stored_weights.write_group``.
    """
    (rounding, precisions), weight = asked, token_table(model).weight.detach()
    read, judged = known.frequency.mean(), known.squares.mean()
    mean = damped(read * known.gradient_gram + judged * known.input_gram, TABLE_DAMPING)
    found = ROUNDING.get(rounding).round(weight.numpy(), (None, mean.numpy()), precisions)
    stored = dict(zip(precisions, found, strict=True))
    never = np.full(min(weight.shape) + 1, np.inf)
    losses = {
        each: QuantizedLoss(_table_loss(weight, blocks, known) / units_per_token, never)
        for each, blocks in stored.items()
    }
    write_group(folder, site.name, {site.name: stored}, losses)


def _table_loss(weight: Tensor, stored: Blocks, known: TableStatistics) -> float:
    error = weight - torch.from_numpy(stored.dense()).T  # (vocabulary, hidden)
    read = ((error @ known.gradient_gram) * error).sum(1) @ known.frequency
    judged = ((error @ known.input_gram) * error).sum(1) @ known.squares
    return 0.5 * float(read + judged)
