"""The values that travel between the stages. Frozen; units are in the names; no heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.exporter import Exporter

Form = Literal["dense", "low_rank", "pivoted", "tied", "kronecker"]
GroupKind = Literal["one", "input", "blocks", "tied", "table", "tied_table"]
Grouping = Literal["one", "input", "blocks", "any", "tied"]
Coefficients = Literal["stacked", "fitted"]
Refinement = Literal["basis", "refit", "scale"]
HealedSites = Literal["all", "low_rank"]
Importance = Literal["surgery", "soco"]
Adapter = Literal["lora", "loha", "lokr"]
Precision = Literal["float32", "float16"]
WeightPrecision = Literal["float32", "float16", "int8", "int4"]
AskedPrecision = Literal["float32", "float16", "int8", "int4", "auto"]
Task = Literal[
    "text-generation",
    "feature-extraction",
    "text-classification",
    "token-classification",
    "fill-mask",
    "image-classification",
    "text2text-generation",
    "automatic-speech-recognition",
    "zero-shot-image-classification",
    "tensors",
]
Axis = Literal["rows", "columns"]
Phase = Literal["prefill", "decode", "forward", "text"]
Pooling = Literal["mean", "cls"]

ALTERNATIVES: tuple[Grouping, ...] = ("any", "tied")  # groupings that offer a site several groups
SHARING: tuple[Grouping, ...] = ("input", "blocks", "any")  # groupings in which a basis is shared
PRECISION_BYTES: dict[str, int] = {"float32": 4, "float16": 2}
WEIGHT_BITS: dict[str, int] = {"int8": 8, "int4": 4}
BLOCK_SIZE = 32  # neighbouring inputs that share a scale, in 8 and in 4 bits


# --- the model and its linears -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinearSite:
    """One dense linear of the model, ``y = x @ weight.T + bias``.

    ``input_name`` names the distinct input that the site reads: sites with the same name see the
    same tensor (query, key and value, for instance) and share one input Gram.
    ``positions_per_token`` tells how often it runs for each token that is counted: once, but in
    models whose stages see an image at several resolutions. Of a model with an encoder and a
    decoder, ``reads_source`` tells those that run on the positions of the source: the encoder's,
    and the keys and values of cross attention; of one that compares images with prompts, those that
    run on the prompts. A convolution is a linear on the patches that its
    ``kernel``, height and width, covers.
    """

    name: str
    in_features: int
    out_features: int
    has_bias: bool
    role: str
    block: int | None
    input_name: str
    positions_per_token: float = 1.0
    reads_source: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of the dense weight; the bias is never compressed."""
        return self.in_features * self.out_features


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """One linear and its plain spectrum, without any data.

    ``effective_rank`` is the exponential of the spectrum's entropy (Roy and Vetterli, 2007);
    ``half_energy_rank`` is the number of components that hold half of the squared norm; ``tail``
    the share of components below a tenth of the largest, large where the spectrum has a heavy
    tail; ``spectrum`` a few singular values over the largest. ``component`` tells WeLore's
    low-rank components (LRC) from the others, and ``rank`` what it would keep.
    """

    name: str
    in_features: int
    out_features: int
    reads: str
    effective_rank: float
    half_energy_rank: int
    tail: float
    spectrum: tuple[float, ...]
    component: Literal["LRC", "N-LRC"]
    rank: int


@dataclass(frozen=True, slots=True)
class SiteGroup:
    """Sites factorized together: they share one ``down``, so a rank belongs to a group.

    ``kind`` tells what they have in common: nothing, for a site alone (``one``); the tensor that
    they read (``input``: query, key and value); their role in neighbouring blocks (``blocks``,
    Basis Sharing, arXiv:2410.03765); or one matrix that serves the first as it is and the second
    transposed (``tied``, arXiv:2401.16438). A ``table`` of embeddings is gathered from, a
    ``tied_table`` also multiplied with.
    """

    name: str
    sites: tuple[LinearSite, ...]
    kind: GroupKind = "one"

    @property
    def in_features(self) -> int:
        return self.sites[0].in_features

    @property
    def out_features(self) -> int:
        """Outputs of all sites together; a tied pair has those of its first site."""
        if self.kind == "tied":
            return self.sites[0].out_features
        return sum(site.out_features for site in self.sites)

    @property
    def parameters(self) -> int:
        """Parameters of the dense weights of all sites."""
        return sum(site.parameters for site in self.sites)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How an image becomes the ``(3, side, side)`` that a model reads; in this order.

    Attributes:
        side: height and width of what the model reads, in pixels.
        tokens: that the model makes of it: patches, and those that it adds to them.
        resized: ``(height, width)`` whatever the shape of the image was, or ``(edge,)``: the
            shorter edge, where the shape stays.
        resample: Pillow's name of the filter, such as ``bicubic``.
        cropped: whether ``side`` is cut out of the middle.
        scale: what the values of a pixel, 0 to 255, are multiplied by.
        mean: is subtracted from red, green and blue.
        std: they are divided by.
    """

    side: int
    tokens: int
    resized: tuple[int, ...]
    resample: str
    cropped: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SoundInput:
    """How a sound becomes the ``(mel_bins, frames)`` that a model reads; in this order.

    Attributes:
        rate: samples per second, of one channel.
        samples: that are read: what is shorter ends in silence, what is longer is cut.
        window: samples of one Fourier transform, under a Hann window.
        hop: samples from one transform to the next; there is a frame for each.
        mel_bins: bands of equal width on Slaney's mel scale, from 0 Hz on.
        highest_hz: where they end.
        tokens: positions that the encoder makes of it.
    """

    rate: int
    samples: int
    window: int
    hop: int
    mel_bins: int
    highest_hz: float
    tokens: int

    @property
    def frames(self) -> int:
        return self.samples // self.hop


@dataclass(frozen=True, slots=True)
class Matching:
    """How texts and images are compared: a logit is ``scale`` times their cosine, plus ``bias``.

    Attributes:
        scale: of the cosine.
        bias: of every logit.
        tokens: of the longest text.
        pad_token: stands behind shorter texts.
        padded: whether every text has ``tokens`` tokens, and padding is read like any other; there
            is no mask then, and each label has a probability of its own.
        prompts: one for each label, among which one is chosen.
    """

    scale: float
    bias: float
    tokens: int
    pad_token: int
    padded: bool
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompts:
    """Tokens of the texts among which one is chosen for every image; arrays, or tensors.

    Attributes:
        ids: ``(prompts, length)``.
        mask: the same shape, 1 for what is read.
    """

    ids: Any  # NDArray[np.int64] | Tensor
    mask: Any


@dataclass(frozen=True)
class Pair:
    """Rows of a model that has an encoder and a decoder; arrays, or tensors.

    Attributes:
        source: that the encoder reads: token ids ``(rows, source length)``, or sounds
            ``(rows, mel_bins, frames)``.
        source_mask: ``(rows, source positions)``, 1 for what is no padding.
        target: ids ``(rows, length + 1)``. The decoder reads all but the last, from its start token
            on, and predicts all but the first.
    """

    source: Any  # NDArray[Any] | Tensor
    source_mask: Any
    target: Any


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, with what is needed to trace it and to run it again.

    ``folder`` is a Hugging Face folder with the same weights in float32, the configuration and the
    tokenizer: what the graph tracer and the bundle read. ``digest`` identifies the weights.
    ``pooling`` is None for models that do not embed, ``image`` and ``sound`` for those that read
    text, and ``mask_token``, the id that stands for what is to be filled in, for those that fill in
    nothing. ``matching`` is None for models that do not compare texts with images, and ``prompts``
    are the texts that a run is about.
    """

    module: nn.Module
    exporter: Exporter
    task: Task
    folder: Path
    source: str
    revision: str | None
    digest: str
    pooling: Pooling | None = None
    image: ImageInput | None = None
    mask_token: int | None = None
    sound: SoundInput | None = None
    matching: Matching | None = None
    prompts: Prompts | None = None

    def example_inputs(self, rows: int, tokens: int) -> dict[str, Tensor]:
        """Make random inputs of one forward pass; an image or a sound has always its own size."""
        size = tokens if self.image is None else self.image.side
        return self.exporter.example_inputs(self.module.config, rows, size)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that decide about memory. Encoders keep no cache: their ``kv_heads`` is 0.

    ``vocab_size`` is that of the logits, and 0 for models that answer no tokens. Where stages see
    an image at several resolutions, the sizes are those of the first stage, which takes most; it
    has ``positions_per_token`` positions for each token of the last one, and every position
    attends to those of its ``window`` only. With an encoder and a decoder, sizes are the decoder's,
    which also keeps keys and values of ``source_tokens``.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_size: int
    vocab_size: int
    positions_per_token: float = 1.0
    window: int | None = None
    source_tokens: int = 0


# --- statistics and decompositions -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """Second moments of one site over the calibration tokens.

    Attributes:
        input_gram: mean of ``x x^T`` per token, ``(in_features, in_features)``, or None.
        output_gradient_gram: mean of ``g g^T`` per token, ``(out_features, out_features)``, where
            ``g`` is the gradient of the summed loss with respect to the site's output; or None.
        units_per_token: losses counted per token. A language model has one loss per token; an
            encoder one per text, so that the reciprocal of its mean length belongs here.
    """

    input_gram: Tensor | None
    output_gradient_gram: Tensor | None
    units_per_token: float = 1.0


# --- plan --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a site may become. ``precision`` is that of its weights."""

    form: Form
    rank: int
    precision: WeightPrecision
    bytes: int
    flops: int
    predicted_loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What an allocator decided for one group, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What one site becomes. ``dense_bytes`` is what it was, in the precision of the graph.

    ``resident_bytes`` is what ONNX Runtime holds of it in memory, ``candidate.bytes`` what a file
    does. ``group`` names the group that it is factorized with; None for a site alone. The bytes of
    what a group shares are counted at its first site.
    """

    name: str
    in_features: int
    out_features: int
    candidate: Candidate
    dense_bytes: int
    reason: str
    group: str | None = None
    resident_bytes: int = 0

    @property
    def changed(self) -> bool:
        """Whether the graph differs there from the original's."""
        return self.candidate.form != "dense" or self.candidate.precision in WEIGHT_BITS


@dataclass(frozen=True)
class Plan:
    """Form, rank and precision of every site. ``predicted_loss`` is in the method's metric."""

    sites: tuple[SitePlan, ...]
    recipe: str
    allocator: str
    budget_bytes: int
    planned_bytes: int
    predicted_loss: float

    @property
    def dense_bytes(self) -> int:
        return sum(site.dense_bytes for site in self.sites)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the planned weights in memory."""
        return sum(site.resident_bytes for site in self.sites)

    @property
    def kept(self) -> float:
        """Share of the factorizable weights' bytes that the plan keeps, in [0, 1]."""
        return self.planned_bytes / self.dense_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a device's memory goes; what is left is for the planned weights, in memory."""

    device_bytes: int
    reserved_bytes: int
    runtime_bytes: int
    fixed_weight_bytes: int
    activation_bytes: int
    cache_bytes: int
    context_tokens: int
    context_token_bytes: int = 0  # what one more token of context takes
    model_tokens: int | None = None  # the longest context that the model takes

    @property
    def weight_bytes(self) -> int:
        """Bytes left for the factorizable weights; negative when nothing fits."""
        return self.device_bytes - (
            self.reserved_bytes
            + self.runtime_bytes
            + self.fixed_weight_bytes
            + self.activation_bytes
            + self.cache_bytes
        )


# --- what was written, and what was found about it ----------------------------------------------


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle; ``path`` is relative to the folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Residency:
    """Bytes of a graph's weights in memory, once ONNX Runtime has loaded them.

    ``packed_bytes`` are copies in the layouts of kernels, which belong to the process;
    ``mapped_bytes`` are pages of the file. ``whole_numbers`` tells that some are multiplied with in
    8 or 4 bits.
    """

    packed_bytes: int
    mapped_bytes: int
    whole_numbers: bool = False

    @property
    def bytes(self) -> int:
        return self.packed_bytes + self.mapped_bytes


@dataclass(frozen=True)
class Manifest:
    """``edgelr/manifest.json``: what a bundle (or a dense export) holds.

    ``model_file`` is relative to the folder; so is ``encoder_file``, where the encoder, or what
    reads prompts, has a graph of its own: both have their weights in one file. ``pooling`` is None
    for models that do not embed, ``mask_token`` for those that fill in no token, ``image`` and
    ``sound`` for those that read text; an image has always ``context_tokens`` tokens. ``matching``
    is None for models that do not compare texts with images.
    ``max_drop`` is the limit of its accuracy gate, and ``gate_passed`` what the gate said.
    ``cache_in_place`` tells that past and present keys and values may be the same tensors;
    ``shape`` and ``residency`` how much memory runs take.
    """

    task: Task
    precision: Precision
    model_file: str
    source: str
    revision: str | None
    digest: str
    opset: int
    ir_version: int
    context_tokens: int
    pooling: Pooling | None = None
    mask_token: int | None = None
    profile: str | None = None
    max_drop: float | None = None
    gate_passed: bool | None = None
    cache_in_place: bool = False
    image: ImageInput | None = None
    shape: ModelShape | None = None
    residency: Residency | None = None
    files: tuple[BundleFile, ...] = ()
    encoder_file: str | None = None
    sound: SoundInput | None = None
    matching: Matching | None = None

    def tokens_read(self, asked: int) -> int:
        """Tokens of one input: as many as are asked for and fit; an image has always its own."""
        return self.context_tokens if self.image else min(asked, self.context_tokens)

    def source_tokens(self, asked: int) -> int:
        """Tokens that an encoder reads of one source: the same, but a sound has its own, too."""
        return self.sound.tokens if self.sound else self.tokens_read(asked)


@dataclass(frozen=True)
class ExportBundle:
    """A finished folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.folder / self.manifest.model_file

    @property
    def encoder_path(self) -> Path | None:
        name = self.manifest.encoder_file
        return None if name is None else self.folder / name

    @property
    def weight_bytes(self) -> int:
        """Bytes of the graph files and their sidecar."""
        sidecar = self.model_path.with_name(self.model_path.name + ".data")
        paths = (self.model_path, self.encoder_path, sidecar)
        return sum(path.stat().st_size for path in paths if path is not None and path.exists())

    def resident_bytes(self, provider: str) -> int | None:
        """Memory of the weights; a GPU holds them as they are stored. None where it is unknown."""
        if provider != "cpu":
            return self.weight_bytes
        return None if self.manifest.residency is None else self.manifest.residency.bytes


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX Runtime against the compressed model in torch, or ``against`` what it names.

    ``greedy_*`` are zero for models that do not generate. What ships in float16, or multiplies in
    whole numbers, has a twin that computes in float32, and the other figures are the twin's.
    ``twin_max_error`` is the largest difference between the outputs of the two, as a share of the
    largest output; None without a twin.
    """

    max_abs_error: float
    max_abs_error_limit: float
    padded_max_abs_error: float
    greedy_prompts: int
    greedy_identical: int
    greedy_tokens: int
    twin_max_error: float | None = None
    twin_limit: float | None = None
    against: str = "torch"

    @property
    def passed(self) -> bool:
        errors = (self.max_abs_error, self.padded_max_abs_error)
        errors_fit = all(error <= self.max_abs_error_limit for error in errors)  # NaN never fits
        tokens_equal = self.greedy_identical == self.greedy_prompts
        twin_fits = (
            self.twin_max_error is None
            or self.twin_limit is None
            or self.twin_max_error <= self.twin_limit
        )
        return errors_fit and tokens_equal and twin_fits


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies, with 95 % confidence; ``units`` were resampled to find it."""

    low: float
    high: float
    units: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One accuracy figure of the bundle; ``baseline`` is the original model's, where it has one.

    ``interval`` is that of ``value`` beside this very baseline; None where nothing tells it.
    """

    name: str
    value: float
    baseline: float | None
    samples: int
    unit: str = ""
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The figure that decides: the bad end of its interval must not be worse than ``limit``.

    ``worst`` is that end; None where a figure has no interval, and ``value`` decides.
    """

    metric: str
    value: float
    limit: float
    higher_is_better: bool
    worst: float | None = None

    @property
    def passed(self) -> bool:
        return self._allows(self.value if self.worst is None else self.worst)

    @property
    def undecided(self) -> bool:
        """Whether the sample is too small to tell: the figure is inside, its bad end is not."""
        return not self.passed and self._allows(self.value)

    def _allows(self, figure: float) -> bool:
        return figure >= self.limit if self.higher_is_better else figure <= self.limit


@dataclass(frozen=True)
class Validation:
    """Same answers? Parity with torch, accuracy against the original, and the gate's word."""

    parity: Parity | None
    metrics: tuple[Metric, ...]
    gate: Gate | None
    precision: Precision
    provider: str
    text: str
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return (self.parity is None or self.parity.passed) and (
            self.gate is None or self.gate.passed
        )


def phase_key(phase: Phase, batch: int, tokens: int, context_tokens: int) -> str:
    """Name a phase: ``"prefill 128"``, ``"decode 128"`` (its context), ``"forward 8x128"``.

    What reads texts beside what reads images has ``"text 16"``.

    A graph that reads no tokens has ``"forward"`` alone.
    """
    if not tokens:
        return phase
    length = context_tokens if phase == "decode" else tokens
    return f"{phase} {length}" if batch == 1 else f"{phase} {batch}x{length}"


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """Latency of one phase. Prefill and forward: ``tokens`` new tokens; decode: one token.

    ``tokens`` is 0 where a graph reads none, but whole tensors.
    """

    phase: Phase
    batch: int
    tokens: int
    context_tokens: int
    repetitions: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    tokens_per_second: float

    @property
    def key(self) -> str:
        """Name in ``Comparison.ratios``."""
        return phase_key(self.phase, self.batch, self.tokens, self.context_tokens)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of a fresh process, from /proc: steady state after the runs, and the peak.

    Attributes:
        predicted_bytes: what the files of the bundle predict for the peak; of the GPU's memory,
            where that has its own.
        gpu_bytes: what the process has on the GPU after the runs: an arena does not shrink. None
            on a CPU, and where the driver does not tell.
    """

    rss_anon_bytes: int
    rss_file_bytes: int
    peak_bytes: int
    baseline_bytes: int
    predicted_bytes: int | None = None
    gpu_bytes: int | None = None

    @property
    def most_bytes(self) -> int:
        """The peak that is predicted: on the GPU, where that was measured."""
        return self.peak_bytes if self.gpu_bytes is None else self.gpu_bytes


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Where the nodes of one operator ran, how many, and how long all of them took in one run."""

    operator: str
    provider: str
    nodes: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CapCheck:
    """A bundle in a process whose memory was limited.

    Attributes:
        limit_bytes: what the device leaves to a process.
        mechanism: what kept the process to it.
        predicted_bytes: what the bundle was predicted to take; None where it does not tell.
        peak_bytes: what it took; None where it did not live to tell, and on a GPU whose driver does
            not tell.
        context_tokens: of the cache, which was filled; the longest text of an encoder.
        prefill_tokens: that were read at once.
        problem: how it failed; empty where it ran.
    """

    limit_bytes: int
    mechanism: str
    predicted_bytes: int | None
    peak_bytes: int | None
    context_tokens: int
    prefill_tokens: int
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Measurement:
    """How fast and how big, in a child process, with the provider that was really used."""

    name: str
    provider: str
    precision: Precision
    threads: int
    file_bytes: int
    load_ms: float
    phases: tuple[PhaseLatency, ...]
    memory: MemoryUse


@dataclass(frozen=True)
class Comparison:
    """The dense export and the bundle, measured alternately.

    ``ratios`` maps a phase key such as ``"prefill 128"`` to the median over repetitions of
    bundle time divided by dense time.
    """

    dense: Measurement
    bundle: Measurement
    ratios: dict[str, float]


@dataclass(frozen=True, slots=True)
class PredictedPhase:
    """Predicted latency of one phase, by the name that ``phase_key`` gives it."""

    key: str
    dense_ms: float
    bundle_ms: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a profile's figures say of a bundle: never a measurement.

    ``phases`` are those that were measured, where this machine is the device, and else those of the
    profile's workload.
    """

    phases: tuple[PredictedPhase, ...]
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class LossCheck:
    """The loss of a plan: predicted on its calibration text, measured on the evaluation text."""

    predicted: float
    measured: float
    unit: str


@dataclass(frozen=True)
class Report:
    """Everything that is known about one bundle on one device (``reports/<profile>.json``)."""

    schema_version: int
    created: str
    command: str
    source: str
    digest: str
    task: Task
    profile: str
    profile_title: str
    recipe: str
    fits: bool
    headroom_bytes: int
    dense_file_bytes: int
    bundle_file_bytes: int
    budget: Budget
    plan: Plan
    validation: Validation | None
    comparison: Comparison | None
    prediction: Prediction | None
    host_is_device: bool
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loss: LossCheck | None = None
    spectra: dict[str, tuple[float, ...]] = field(default_factory=dict)
    license: str = ""
