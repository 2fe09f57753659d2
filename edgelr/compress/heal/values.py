"""Settings of a healing, and its result."""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.compress.factors import FactorSet
from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Adapter, HealedSites


@dataclass(frozen=True, slots=True)
class Healing:
    """Length and kind of a training, which ends with the first of ``steps`` and ``minutes``.

    Attributes:
        steps: number of updates; None to go on until the minutes are over.
        minutes: wall-clock time, evaluations included; None for as long as the steps take. What
            it returns depends on the machine's speed, unlike after a number of steps.
        sites: sites to train: ``all``, or ``low_rank``, whose rank is at most half of the full
            rank, as WeLore does (arXiv:2407.11239).
        adapter: kind of an update that is trained through peft and merged, instead of the factors
            themselves. Matrices that sites share, tied matrices and Kronecker terms stay.
        learning_rate: peak rate of the factors; adapters take ten times as much.
        batch_tokens: largest number of tokens of a batch of texts.
        bfloat16: True to multiply in bfloat16, with sums, parameters, their updates, losses
            and all that is held out in float32; what is returned is float32.
        seed: random seed of the order of the texts, and of the adapters' initial values.

    Raises:
        InputError: there is no end.
    """

    steps: int | None = None
    minutes: float | None = None
    sites: HealedSites = "all"
    adapter: Adapter | None = None
    # Balanced factors of a 135M model have entries of about 0.05, and Adam moves every entry by
    # up to its rate: 0.4 % of that per step, as in fine-tuning. WeLore's 5e-5 is for 7B models.
    learning_rate: float = 2e-4
    batch_tokens: int = 1024
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError(
                "Healing was asked for without an end; expected a number of steps, of minutes, or "
                "both. Give --heal-steps or --heal-minutes."
            )


@dataclass(frozen=True, slots=True)
class Healed:
    """The factors of the lowest held-out loss, which may be those that were given.

    Attributes:
        factors: factors in the given forms and shapes.
        steps: number of updates that were made.
        best_step: step of the returned factors; 0 for the given ones, untouched.
        first_loss: held-out distillation loss of the given factors: nats per token of a decoder,
            one minus the cosine per text of an encoder.
        best_loss: held-out distillation loss of the returned factors.
        seconds: wall-clock time, interruptions not counted.
        note: reason why the training ended before its time; empty where it did not.
    """

    factors: FactorSet
    steps: int
    best_step: int
    first_loss: float
    best_loss: float
    seconds: float
    note: str = ""
