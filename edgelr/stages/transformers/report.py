"""What the report says of a model beside what every report says: predictions, notes, hashes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.dimensions import ModelShape
from edgelr.core.inputs import ImageInput, SoundInput
from edgelr.core.measurement import Prediction
from edgelr.core.tasks import TASKS
from edgelr.data.generation import left_out
from edgelr.device.latency import PhaseSize, predict
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.model.sentence_modules import prompts_of
from edgelr.model.small_files import read_json
from edgelr.stages.transformers.subject import ModelPlanned, ModelSubject

TOLD_PROMPTS = 10
GENERATION = "generation_config.json"


def predicted_latency(
    subject: ModelSubject,
    dense: ExportBundle,
    bundle: ExportBundle,
    runs: list[PhaseSize],
    resident_bytes: int,
) -> Prediction | None:
    """Predict the runs of a graph; of an encoder and a decoder, each its own."""
    shape = subject.shape

    def predicted(
        sizes: ModelShape,
        first: Path,
        second: Path,
        chosen: list[PhaseSize],
        given: ImageInput | SoundInput | None,
    ) -> Prediction | None:
        tokens = None if given is None else given.tokens
        workloads = read_workload(first, tokens), read_workload(second, tokens)
        known = (subject.device, sizes, subject.precision)
        return predict(*known, *workloads, chosen, resident_bytes)

    one = not shape.source_tokens  # texts beside images are read once, and not predicted
    if dense.encoder_path is None or bundle.encoder_path is None or one:
        return predicted(shape, dense.model_path, bundle.model_path, runs, subject.model.image)
    encoder = replace(shape, kv_heads=0, source_tokens=0)
    forward = [run for run in runs if run.tokens > 1]
    decode = [run for run in runs if run.tokens == 1]
    sound = subject.model.sound
    read = predicted(encoder, dense.encoder_path, bundle.encoder_path, forward, sound)
    written = predicted(shape, dense.model_path, bundle.model_path, decode, None)
    if read is None or written is None:
        return None
    return replace(read, phases=(*read.phases, *written.phases))


def calibration_notes(made: ModelPlanned) -> tuple[str, ...]:
    """Say what the model was calibrated on, and which prompts its images are compared with."""
    calibration = made.costs.calibration
    parts = ", ".join(f"{part.description} ({part.tokens:,} tokens)" for part in calibration)
    notes = [f"Calibrated on: {parts}."]
    matching = made.subject.model.matching
    if matching is not None:
        count, first = len(matching.prompts), "”, “".join(matching.prompts[:TOLD_PROMPTS])
        more = ", …" if count > TOLD_PROMPTS else ""
        notes.append(f"Every image is compared with {count:,} prompts: “{first}”{more}.")
    return (*notes, *_prompt_notes(made.subject.model), *_generation_notes(made.subject.model))


def _prompt_notes(model: LoadedModel) -> list[str]:
    """Name the prompts that sentence-transformers puts before the texts of an embedder."""
    embeds = model.pooling is not None or model.sentence_layers
    prompts = prompts_of(model.folder) if embeds else {}
    usual = prompts.pop("", None)
    notes = [f"sentence-transformers puts “{usual}” before every text: do the same."] * bool(usual)
    if prompts:
        told = ", ".join(f"{name} “{text}”" for name, text in prompts.items())
        notes.append(f"Prompts that this model was trained with, to put before a text: {told}.")
    return notes


def _generation_notes(model: LoadedModel) -> list[str]:
    """Say what the model's ``generation_config.json`` asks for, and a bundle does not do."""
    path = model.folder / GENERATION
    if not TASKS.get(model.task).predicts_tokens or not path.is_file():
        return []
    asked = left_out(read_json(path), has_start=model.task != "text-generation")
    told = ", ".join(f"{name} {value}" for name, value in asked.items())
    note = (
        f"{GENERATION} asks for {told}: the programs of this bundle take the likeliest token, and "
        f"do not do that. The file is in the bundle, for programs that do."
    )
    return [note] if asked else []


def origin(made: ModelPlanned) -> dict[str, object]:
    """Name the model and the rows that it was calibrated on, with their hashes."""
    model = made.subject.model
    return {
        "model": {"digest": model.digest, "revision": model.revision},
        "calibration": [
            {"text": part.description, "tokens": part.tokens, "sha256": part.key}
            for part in made.costs.calibration
        ],
    }
