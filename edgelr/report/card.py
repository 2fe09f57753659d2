"""The model card: a bundle's README.md, complete enough to run the bundle without edgelr."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from edgelr.report import tables
from edgelr.report.figures import NOT_MEASURED, model_name, percent, verdicts
from edgelr.report.markdown import draw, fence

if TYPE_CHECKING:
    from pathlib import Path

    from edgelr.core.plan import Plan
    from edgelr.core.report import Report
    from edgelr.core.vocabulary import Task

GENERATE = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `generate.py` and run
`python generate.py FOLDER "The capital of France is"`. The prompt is taken as it is: a chat model
expects its chat template around it."""

GENAI = """The same folder runs in
[onnxruntime-genai](https://github.com/microsoft/onnxruntime-genai), and gives the same tokens:"""

NO_GENAI = """[onnxruntime-genai](https://github.com/microsoft/onnxruntime-genai) does not run this
folder: it has no `genai_config.json`."""

EMBED = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `embed.py` and run
`python embed.py FOLDER "A dog runs." "A puppy is running."`"""

CLASSIFY = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `classify.py` and run
`python classify.py FOLDER "A dog runs." "A puppy is running."`"""

FILL_MASK = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `fill_mask.py` and run
`python fill_mask.py FOLDER "The capital of France is [MASK]."`, with the mask as this tokenizer
writes it."""

ANSWER = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `answer.py` and run
`python answer.py FOLDER "TEXT"`. The text is taken as it is: write what the model expects before
it, such as the task of a T5."""

TRANSCRIBE = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `transcribe.py` and run
`python transcribe.py FOLDER SOUND.wav`. It reads the beginning of a sound, as much as the model
does at once: `samples` of `sound` in `edgelr/manifest.json`."""

RUN = """## Run it

The inputs and outputs are those of the original graph. With
[onnxruntime](https://onnxruntime.ai) only; save this as `run.py` and run `python run.py FOLDER`."""

EMBED_IMAGE = """## Run it

With [onnxruntime](https://onnxruntime.ai) and [Pillow](https://python-pillow.github.io) only; save
this as `embed_image.py` and run `python embed_image.py FOLDER first.jpg second.jpg`"""

CLASSIFY_IMAGE = """## Run it

With [onnxruntime](https://onnxruntime.ai) and [Pillow](https://python-pillow.github.io) only; save
this as `classify_image.py` and run `python classify_image.py FOLDER photo.jpg`"""

MATCH_IMAGE = """## Run it

With [onnxruntime](https://onnxruntime.ai),
[tokenizers](https://github.com/huggingface/tokenizers) and
[Pillow](https://python-pillow.github.io) only; save this as `match_image.py` and run
`python match_image.py FOLDER photo.jpg "a photo of a cat" "a photo of a dog"`. Texts are embedded
once, and compared with any number of images."""

TEST = """## Test it

`pytest FOLDER/tests` checks, with onnxruntime and without edgelr, that the files are whole, that
the bundle answers as it did when it was exported, and that it is still within the accuracy gate of
the original. `tests/conftest.py` says how to test another execution provider."""

DEVICES = """Times are those of the original and of the bundle: measured on the device, or PREDICTED
from its profile where the heading says so."""

PROOF = """`edgelr validate` checks the answers again, `edgelr measure` the latency and the memory.
The whole report is in `reports/`, the plan of every layer in `edgelr/plan.json`, and sizes and
checksums of all files in `edgelr/manifest.json`."""


def model_card(
    report: Report, reads_images: bool = False, in_genai: bool = True, has_tests: bool = False
) -> str:
    """Write the README.md of the bundle that ``report`` is about.

    Args:
        report: report of the bundle on one device.
        reads_images: whether the model reads images.
        in_genai: whether onnxruntime-genai runs the folder of a decoder.
        has_tests: whether the bundle holds its tests.
    """
    sections = [
        _front_matter(report, reads_images),
        f"# {model_name(report.source)}, compressed for {report.profile_title}",
        _what_it_is(report),
        "\n".join(f"- {verdict.text}" for verdict in verdicts(report)),
        draw(tables.size_table(report)),
        _accuracy(report),
        "## Devices",
        draw(tables.device_table([report])),
        DEVICES,
        *_how_to_run(report.task, reads_images, in_genai),
        *([TEST] if has_tests else []),
        "## How it was made",
        fence("bash", report.command),
        PROOF,
    ]
    return "\n\n".join(sections) + "\n"


def license_of(folder: Path) -> str:
    """Read the license in the card of a model; empty where the card has none."""
    import yaml

    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not text.startswith("---\n"):
        return ""
    try:
        told = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return ""
    found = told.get("license", "") if isinstance(told, dict) else ""
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")


def snippet(name: str) -> str:
    """Read one of the runnable examples, for instance ``"generate.py"``."""
    return files("edgelr.report").joinpath("snippets", name).read_text(encoding="utf-8")


def _front_matter(report: Report, reads_images: bool) -> str:
    import yaml

    embeds_images = reads_images and report.task == "feature-extraction"
    tag = "image-feature-extraction" if embeds_images else report.task
    facts = {
        "base_model": model_name(report.source),
        **({"license": report.license} if report.license else {}),
        "library_name": "onnxruntime",
        **({} if tag == "tensors" else {"pipeline_tag": tag}),
        "tags": ["onnx", "edgelr", "low-rank", *_precisions(report.plan), report.profile],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _precisions(plan: Plan) -> list[str]:
    """List the precisions of the weights: float32, float16, int8, int4."""
    return sorted({site.candidate.precision for site in plan.sites})


def _what_it_is(report: Report) -> str:
    plan = report.plan
    precision = " and ".join(_precisions(plan)) or "float32"
    return (
        f"An ONNX model in {precision}, made from `{model_name(report.source)}` by edgelr with "
        f"the recipe `{report.recipe}`. Its linear layers are factorized into products of two "
        f"small matrices, each with a rank of its own, or kept dense where that is better: "
        f"{percent(plan.kept)} of their bytes are kept."
    )


def _accuracy(report: Report) -> str:
    validation = report.validation
    if validation is None:
        return f"Accuracy: {NOT_MEASURED}."
    if not validation.metrics:
        return f"Accuracy on {validation.text}: {NOT_MEASURED}."
    return f"{draw(tables.accuracy_table(validation))}\n\nMeasured on {validation.text}."


def _how_to_run(task: Task, reads_images: bool, in_genai: bool) -> list[str]:
    if task == "text-generation":
        plain = fence("python", snippet("generate.py"))
        if not in_genai:
            return [GENERATE, plain, NO_GENAI]
        return [GENERATE, plain, GENAI, fence("python", snippet("generate_genai.py"))]
    if task == "text2text-generation":
        return [ANSWER, fence("python", snippet("answer.py"))]
    if task == "automatic-speech-recognition":
        return [TRANSCRIBE, fence("python", snippet("transcribe.py"))]
    if task == "zero-shot-image-classification":
        return [MATCH_IMAGE, fence("python", snippet("match_image.py"))]
    if task == "tensors":
        return [RUN, fence("python", snippet("run.py"))]
    if reads_images and task == "feature-extraction":
        return [EMBED_IMAGE, fence("python", snippet("embed_image.py"))]
    if reads_images:
        return [CLASSIFY_IMAGE, fence("python", snippet("classify_image.py"))]
    if task == "feature-extraction":
        return [EMBED, fence("python", snippet("embed.py"))]
    if task == "fill-mask":
        return [FILL_MASK, fence("python", snippet("fill_mask.py"))]
    return [CLASSIFY, fence("python", snippet("classify.py"))]
