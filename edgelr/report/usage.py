"""Ways to run a bundle without edgelr, by modality and task: what its card shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from edgelr.core.modality import DECODER, TENSORS
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Task
from edgelr.report.markdown import fence


def snippet(name: str) -> str:
    """Read one of the runnable examples, for instance ``"generate.py"``."""
    return files("edgelr.report").joinpath("snippets", name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Usage:
    """A program that runs bundles of one task.

    Attributes:
        text: Markdown that says what the program needs, and how it is called.
        program: source of the program.
        tag: name of the task on the Hub; None where it has none.
        in_genai: Markdown behind the program, where onnxruntime-genai runs the folder.
        not_in_genai: Markdown behind it, where onnxruntime-genai does not.
    """

    text: str
    program: str
    tag: str | None
    in_genai: str = ""
    not_in_genai: str = ""


USAGES: Registry[Mapping[Task, Usage]] = Registry("usage", group="edgelr.usages")

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
`python embed.py FOLDER "A dog runs." "A puppy is running."`. It gives vectors of length 1, whether
or not the original does."""

CLASSIFY = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `classify.py` and run
`python classify.py FOLDER "A dog runs." "A puppy is running."`"""

RANK = """## Run it

With [onnxruntime](https://onnxruntime.ai) and
[tokenizers](https://github.com/huggingface/tokenizers) only; save this as `rank.py` and run
`python rank.py FOLDER "Where do puppies sleep?" "A puppy sleeps in a basket." "The sky is blue."`.
The graph gives raw scores, `logits (pairs, 1)`, for a query and a passage that are tokenized
together; `token_type_ids`, where it has this input, tells one from the other. The program applies
the function that sentence-transformers applies (a sigmoid, unless `config.json` names Identity):
it changes no order."""

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


def _usage(task: Task, text: str, file: str) -> dict[Task, Usage]:
    """Show a program under the task's own name."""
    return {task: Usage(text, snippet(file), task)}


USAGES.register(DECODER)(
    {
        "text-generation": Usage(
            GENERATE,
            snippet("generate.py"),
            "text-generation",
            f"{GENAI}\n\n{fence('python', snippet('generate_genai.py'))}",
            NO_GENAI,
        )
    }
)
USAGES.register("text_encoder")(
    {
        **_usage("feature-extraction", EMBED, "embed.py"),
        **_usage("text-classification", CLASSIFY, "classify.py"),
        **_usage("token-classification", CLASSIFY, "classify.py"),
        **_usage("fill-mask", FILL_MASK, "fill_mask.py"),
    }
)
USAGES.register("text_pair")(_usage("text-ranking", RANK, "rank.py"))
USAGES.register("image_encoder")(
    {
        **_usage("image-classification", CLASSIFY_IMAGE, "classify_image.py"),
        "feature-extraction": Usage(
            EMBED_IMAGE, snippet("embed_image.py"), "image-feature-extraction"
        ),
    }
)
USAGES.register("encoder_decoder")(_usage("text2text-generation", ANSWER, "answer.py"))
USAGES.register("speech")(_usage("automatic-speech-recognition", TRANSCRIBE, "transcribe.py"))
USAGES.register("dual_encoder")(
    _usage("zero-shot-image-classification", MATCH_IMAGE, "match_image.py")
)
USAGES.register(TENSORS)({"tensors": Usage(RUN, snippet("run.py"), None)})
