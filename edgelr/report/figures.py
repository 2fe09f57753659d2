"""Figures and verdicts as text, the same in every kind of report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelr.core.vocabulary import MIB
from edgelr.device.budget import longest_context_tokens

if TYPE_CHECKING:
    from edgelr.core.measurement import CapCheck, Comparison
    from edgelr.core.plan import Budget
    from edgelr.core.report import Report
    from edgelr.core.results import Gate, Validation

NOT_MEASURED = "not measured"
KEPT_SHARES = tuple(part / 10 for part in range(1, 10))  # of components, in ``Report.spectra``
UNDECIDED = "The sample is too small to decide: judge on more, or keep more."


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text. The first column is a label; the others are figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, and whether it is good news; None where nothing was measured."""

    good: bool | None
    text: str


def mib(size: float) -> str:
    """Write a number of bytes in MiB; small ones keep three decimals."""
    value = size / MIB
    return f"{value:,.1f}" if abs(value) >= 10 or value == 0 else f"{value:.3f}"


def percent(share: float) -> str:
    """Write a share in [0, 1] as percent."""
    return f"{100 * share:.1f} %"


def rounded(count: int) -> int:
    """Round a number that is estimated up to two digits."""
    step = int("1".ljust(max(1, len(str(count)) - 1), "0"))
    return -(-count // step) * step


def figure(value: float | None) -> str:
    """Write a figure with five significant digits, or say that there is none."""
    return NOT_MEASURED if value is None else f"{value:,.5g}"


def verdicts(report: Report) -> list[Verdict]:
    """Say whether the bundle fits, whether it is accurate enough, and whether answers agree."""
    return [_fit(report), _gate(report.validation), _parity(report.validation)]


def speed_verdict(report: Report) -> Verdict:
    """Say whether the bundle is faster; on another machine than the device nothing is proven."""
    if report.comparison is None:
        return Verdict(None, f"Latency: {NOT_MEASURED}.")
    ratios = report.comparison.ratios
    faster = {name: report.comparison.faster(name) for name in ratios}
    times = ", ".join(
        f"{name} in {ratio:.3f}{' (undecided)' if faster[name] is None else ''}"
        for name, ratio in ratios.items()
    )
    told = f"{times} of the original's time"
    if not report.host_is_device:
        text = f"Not timed on {report.profile_title}; on this host it runs {told}."
        return Verdict(None, f"{text}{_predicted_speed(report)}")
    if all(faster.values()):
        good, word = True, "Faster"
    elif False in faster.values():
        good, word = False, "Not faster in every phase"
    else:
        good, word = None, "Undecided whether faster in every phase"
    return Verdict(good, f"{word}, measured on {report.profile_title}: {told}.")


def _predicted_speed(report: Report) -> str:
    if report.prediction is None:
        return ""
    times = ", ".join(
        f"{phase.key} in {phase.bundle_ms / phase.dense_ms:.3f}"
        for phase in report.prediction.phases
        if phase.dense_ms
    )
    return f" PREDICTED for the device: {times}."


def measured_heading(report: Report) -> str:
    """Say on which machine latency and memory were measured."""
    if report.host_is_device:
        return f"Measured on {report.profile_title}"
    return f"Measured on this host, not on {report.profile_title}"


def _fit(report: Report) -> Verdict:
    size = mib(abs(report.headroom_bytes))
    if report.fits:
        return Verdict(
            True, f"Fits the memory budget of {report.profile_title}, {size} MiB to spare."
        )
    return Verdict(False, f"Does not fit {report.profile_title}: {size} MiB are missing.")


def _gate(validation: Validation | None) -> Verdict:
    if validation is None:
        return Verdict(None, f"Accuracy: {NOT_MEASURED}.")
    if validation.gate is None:
        return Verdict(None, "Accuracy: no gate was set.")
    return Verdict(validation.gate.passed, gate_sentence(validation.gate))


def measured_on_device(report: Report) -> Comparison | None:
    """Find the measurement to compare a prediction with: one on the device itself."""
    return report.comparison if report.host_is_device else None


def environment_facts(names: dict[str, str]) -> tuple[str, str]:
    """Say on which machine and with which versions figures were found."""
    machine = {"cpu", "platform", "machine"}
    versions = ", ".join(f"{name} {names[name]}" for name in names if name not in machine)
    return f"machine: {names.get('cpu', names.get('machine', 'unknown'))}", f"versions: {versions}"


def context_sentence(budget: Budget, weight_bytes: int) -> str:
    """Say how long a context fits beside the weights; nothing for what has no cache."""
    if not budget.cache_bytes:
        return ""
    longest = longest_context_tokens(budget, weight_bytes)
    limit = ", the most that the model takes" if longest == budget.model_tokens else ""
    return f"The longest context that fits beside these weights has {longest:,} tokens{limit}."


def cap_sentence(found: CapCheck) -> str:
    """Say whether a bundle ran under a cap, and whether that was predicted."""
    size = f"a context of {found.context_tokens:,} tokens, {found.prefill_tokens:,} read at once"
    fits = found.predicted_bytes is None or found.predicted_bytes <= found.limit_bytes
    if found.passed:
        return f"It ran with {size}{'' if fits else '; the prediction had said that it would not'}."
    told = "as predicted" if not fits else "although the prediction had said that it would run"
    return f"It did not run with {size}, {told}: {found.problem}"


def gate_sentence(gate: Gate) -> str:
    """Say what the gate found and what it allows."""
    word = "passed" if gate.passed else "FAILED"
    bound = "at least" if gate.higher_is_better else "at most"
    sure = "" if gate.worst is None else f" and {bound} {figure(gate.worst)} with 95 % confidence"
    told = (
        f"Accuracy gate {word}: {gate.metric} is {figure(gate.value)}{sure}, "
        f"allowed is {bound} {figure(gate.limit)}."
    )
    if not gate.undecided:
        return told
    more = gate.more_samples
    if more is None:
        return f"{told} {UNDECIDED}"
    return (
        f"{told} {UNDECIDED} About {rounded(more):,} more than the {gate.samples:,} samples would "
        f"decide (an estimate: intervals shrink with the root of their number)."
    )


def _parity(validation: Validation | None) -> Verdict:
    if validation is None or validation.parity is None:
        return Verdict(None, f"Parity with torch: {NOT_MEASURED}.")
    against = validation.parity.against
    if validation.parity.passed:
        return Verdict(True, f"Parity passed: ONNX Runtime gives the answers of {against}.")
    return Verdict(False, f"Parity FAILED: ONNX Runtime does not give the answers of {against}.")


def model_name(source: str) -> str:
    """Name the model: a Hub id as it is, a path by its last part without the file type."""
    stem = re.sub(r"\.(gguf|onnx)$", "", source.rstrip("/\\"))
    is_hub_id = stem == source and re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) is not None
    return source if is_hub_id else re.split(r"[/\\]", stem)[-1]
