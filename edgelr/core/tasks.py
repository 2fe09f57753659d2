"""What a model is for: the class that loads it, what its losses are, and what its gate judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Task

Loss = Literal[
    "next_token",
    "target_token",
    "embedding",
    "label",
    "score",
    "token_label",
    "mask_label",
    "choice",
    "outputs",
]
MetricName = Literal["perplexity", "mean_cosine", "spearman", "top1_agreement"]


@dataclass(frozen=True, slots=True)
class TaskTraits:
    """One task.

    Attributes:
        auto_class: the transformers class that loads a model for it.
        architecture: part of the names in ``config.architectures``; empty where none tells.
        output: name of the graph's output.
        loss: loss that calibration differentiates. ``next_token``: cross entropy against labels
            sampled from the model; ``target_token``: the same of a decoder beside an encoder.
            ``label``, ``token_label`` and ``mask_label``: the same, one for a text or an image, for
            each token, or for each that is masked. ``embedding``: squared distance of the pooled,
            normalized embedding; ``score``: the same of one number, over its variance. ``choice``:
            of a prompt, for an image. ``outputs``: of no model; a graph is judged by its outputs.
        metric: figure that the accuracy gate judges.
    """

    auto_class: str
    architecture: str
    output: Literal["logits", "last_hidden_state", "logits_per_image", ""]
    loss: Loss
    metric: MetricName

    @property
    def by_row(self) -> bool:
        """Whether a text or an image has one loss, and not each of its tokens."""
        return self.loss in ("embedding", "score", "label", "choice")

    @property
    def answers_numbers(self) -> bool:
        """Whether squared distances of the answers are compared, and no probabilities."""
        return self.loss in ("embedding", "score")

    @property
    def answers_tokens(self) -> bool:
        """Whether what is answered is a token of the vocabulary."""
        return self.loss in ("next_token", "target_token", "mask_label")

    @property
    def predicts_tokens(self) -> bool:
        """Whether every loss is that of a token of a text that is generated."""
        return self.loss in ("next_token", "target_token")


TASKS: Registry[TaskTraits] = Registry("task", group="edgelr.tasks")

_BUILT_IN: dict[Task, TaskTraits] = {
    "text-generation": TaskTraits(
        "AutoModelForCausalLM", "ForCausalLM", "logits", "next_token", "perplexity"
    ),
    "feature-extraction": TaskTraits(
        "AutoModel", "", "last_hidden_state", "embedding", "mean_cosine"
    ),
    "text-classification": TaskTraits(
        "AutoModelForSequenceClassification",
        "ForSequenceClassification",
        "logits",
        "label",
        "top1_agreement",
    ),
    "text-ranking": TaskTraits(
        "AutoModelForSequenceClassification",
        "ForSequenceClassification",
        "logits",
        "score",
        "spearman",
    ),
    "image-classification": TaskTraits(
        "AutoModelForImageClassification",
        "ForImageClassification",
        "logits",
        "label",
        "top1_agreement",
    ),
    "text2text-generation": TaskTraits(
        "AutoModelForSeq2SeqLM", "ForConditionalGeneration", "logits", "target_token", "perplexity"
    ),
    "automatic-speech-recognition": TaskTraits(
        "AutoModelForSpeechSeq2Seq",
        "ForConditionalGeneration",
        "logits",
        "target_token",
        "perplexity",
    ),
    "zero-shot-image-classification": TaskTraits(
        "AutoModelForZeroShotImageClassification",
        "",
        "logits_per_image",
        "choice",
        "top1_agreement",
    ),
    "token-classification": TaskTraits(
        "AutoModelForTokenClassification",
        "ForTokenClassification",
        "logits",
        "token_label",
        "top1_agreement",
    ),
    "fill-mask": TaskTraits(
        "AutoModelForMaskedLM", "ForMaskedLM", "logits", "mask_label", "top1_agreement"
    ),
    "tensors": TaskTraits("", "", "", "outputs", "mean_cosine"),  # a graph from anywhere
}
for _name, _traits in _BUILT_IN.items():
    TASKS.register(_name)(_traits)


def decides_each_label(problem_type: str | None, labels: int) -> bool:
    """Tell whether several of the labels may be true at once, or a score is the only one."""
    return problem_type == "multi_label_classification" or labels == 1
