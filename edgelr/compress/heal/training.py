"""Train tensors by a schedule, keep the best of them, and be able to go on later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgelr.compress.heal.state import State, load, save
from edgelr.compress.heal.values import Healing
from edgelr.core.vocabulary import Progress

if TYPE_CHECKING:
    from edgelr.compress.heal.distillation import Batch

WARM_UP = 0.05  # share of the schedule: Adam's first steps know no scale yet
LAST_RATE = 0.1  # of the peak, as in WeLore
LARGEST_NORM = 1.0  # of the gradient of all parameters together
EVALUATED_SHARE = 0.05  # of the schedule, between two evaluations,
FEWEST_STEPS, MOST_STEPS = 10, 25  # unless that makes them too expensive or too rare
ADAPTER_RATE = 10.0  # times the factors': updates start at zero, and are products of matrices


def rate(share: float) -> float:
    """Learning rate, as a part of its peak, after a share of the schedule."""
    if share < WARM_UP:
        return share / WARM_UP
    angle = math.pi * (share - WARM_UP) / (1 - WARM_UP)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(angle)) / 2


def multiplies_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 natively, and so faster than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


class Training:
    """A training that can be interrupted: it continues from its last evaluation.

    Args:
        parameters: trained tensors by name; changed in place.
        asked: length and kind of the training.
        folder: folder of this very training; the state there is continued.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], asked: Healing, folder: Path) -> None:
        self.parameters, self.asked, self.folder = parameters, asked, folder
        # No decay: factors are approximations of given weights, and zero is none.
        self.optimizer = torch.optim.AdamW(
            parameters.values(), betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.best: dict[str, Tensor] = {}  # empty while nothing is better than what was given
        self.state, tensors = load(folder)
        self._restore(tensors)
        self._began = perf_counter() - self.state.seconds

    def run(
        self,
        batches: Iterator[Batch],
        loss: Callable[[Batch], Tensor],
        evaluate: Callable[[], float],
        progress: Progress,
    ) -> State:
        """Train to the end, and leave the best values in the parameters.

        Args:
            batches: batches, the same at every call; those of earlier steps are skipped.
            loss: function that computes the loss of one batch, differentiably.
            evaluate: function that computes the loss that decides what is best.
            progress: function of ``("healing", done, total)``, called after every step.
        """
        if self.state.evaluated_step < 0:
            self._evaluate(evaluate)
        for batch in islice(batches, self.state.step, None):
            if self.state.finished or self.state.note or self._share() >= 1:
                break
            self._step(batch, loss)
            progress("healing", *self._done())
            if self._is_due():
                self._evaluate(evaluate)
        self._finish(evaluate)
        return self.state

    def _step(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> None:
        """Update the parameters, or end the training where the loss is not finite."""
        began, state = perf_counter(), self.state
        self.optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), LARGEST_NORM)
        if not (torch.isfinite(value) and torch.isfinite(norm)):
            state.note = (
                f"Step {state.step + 1} had a loss of {value.item()} and a gradient of norm "
                f"{norm.item()}: healing ended there. Lower the learning rate."
            )
            return
        state.step += 1
        peak = self.asked.learning_rate * (ADAPTER_RATE if self.asked.adapter else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = peak * rate(min(1.0, self._share()))
        self.optimizer.step()
        state.step_seconds = perf_counter() - began

    def _evaluate(self, evaluate: Callable[[], float]) -> None:
        """Keep the parameters where they are the best so far, and save everything."""
        began, state = perf_counter(), self.state
        loss = evaluate()
        if state.evaluated_step < 0:
            state.first_loss = state.best_loss = loss
        elif loss < state.best_loss:
            state.best_loss, state.best_step = loss, state.step
            self.best = {name: each.detach().clone() for name, each in self.parameters.items()}
        if not (math.isfinite(loss) or state.note):
            state.note = (
                f"The held-out loss after step {state.step} is {loss}: healing ended there."
            )
        state.evaluated_step, state.evaluated_share = state.step, self._share()
        state.evaluation_seconds = perf_counter() - began
        self._save()

    def _finish(self, evaluate: Callable[[], float]) -> None:
        """Evaluate the last steps, and put the best values into the parameters."""
        if self.state.evaluated_step < self.state.step:
            self._evaluate(evaluate)
        if not self.state.finished:
            self.state.finished = True
            self.state.note = self.state.note or self._shortage()
            self._save()
        with torch.no_grad():
            for name, best in self.best.items():
                self.parameters[name].copy_(best)

    def _share(self) -> float:
        """Share of the schedule that is over: by steps or by time, whichever is more.

        The time of one more step and of the last evaluation is set aside.
        """
        steps, minutes, shares = self.asked.steps, self.asked.minutes, [0.0]
        if steps is not None:
            shares.append(self.state.step / steps if steps else 1.0)
        if minutes is not None:
            usable = 60 * minutes - self.state.step_seconds - self.state.evaluation_seconds
            shares.append((perf_counter() - self._began) / usable if usable > 0 else 1.0)
        return max(shares)

    def _shortage(self) -> str:
        if self.state.step or self.asked.minutes is None:
            return ""
        return (
            f"The {self.asked.minutes:g} minutes were over before the first step: one evaluation "
            f"took {self.state.evaluation_seconds:.1f} s. Give more minutes, or less held-out text."
        )

    def _is_due(self) -> bool:
        steps = self.state.step - self.state.evaluated_step
        share = self._share() - self.state.evaluated_share
        return steps >= MOST_STEPS or (steps >= FEWEST_STEPS and share >= EVALUATED_SHARE)

    def _done(self) -> tuple[int, int]:
        """Steps done and to do; seconds, where the steps are not limited."""
        if self.asked.steps is not None:
            return self.state.step, self.asked.steps
        total = math.ceil(60 * (self.asked.minutes or 0.0))
        return min(total, int(perf_counter() - self._began)), total

    def _save(self) -> None:
        self.state.seconds = perf_counter() - self._began
        tensors = {f"best.{name}": each for name, each in self.best.items()}
        if not self.state.finished:
            for name, each in self.parameters.items():
                tensors[f"now.{name}"] = each.detach()
                for key, moment in self.optimizer.state[each].items():
                    tensors[f"{key}.{name}"] = moment
        save(self.folder, self.state, tensors)

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors that ``_save`` wrote, by the first part of their names."""
        moments: dict[int, dict[str, Tensor]] = {}
        names = {name: index for index, name in enumerate(self.parameters)}
        for full_name, tensor in tensors.items():
            key, _, name = full_name.partition(".")
            if key == "best":
                self.best[name] = tensor
            elif key == "now":
                self.parameters[name].data.copy_(tensor)
            else:
                moments.setdefault(names[name], {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
