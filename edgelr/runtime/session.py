"""Open a graph with the provider that was asked for, or refuse; run it on arrays.

ONNX Runtime falls back to the CPU without an error when a GPU library is missing. Here a session
runs on the provider that was asked for, or it does not open.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError, ProviderError
from edgelr.core.measurement import OperatorTime
from edgelr.core.vocabulary import Array
from edgelr.runtime.memory import usable_cores
from edgelr.runtime.requests import ON_CPU, Execution

Value: TypeAlias = Any  # an onnxruntime.OrtValue: a tensor on the session's device

CPU = "CPUExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider"}
_WHEELS = ("onnxruntime", "onnxruntime-gpu")
_SAME_NAME = ("float16", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (64, 32, 16, 8)))
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({name})": np.dtype(name) for name in _SAME_NAME},
}
# Threads that spin after a run take the cores of the next process: two processes that took turns
# on two cores each ran 1.4 to 1.6 times slower than alone; with this, as fast as alone.
_REST_BETWEEN_RUNS = ("session.force_spinning_stop", "1")
_NO_QUANTIZED_PRODUCTS = ("session.disable_quant_qdq", "1")
_SILENT = ort.RunOptions()
_SILENT.log_severity_level = 4  # what fails is raised, too
_MODEL_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
)
_NO_MEMORY = "BFCArena::AllocateRawInternal"  # in all that an arena says when it cannot grow
_DEVICE_ERRORS = (state.EPFail, state.EngineError, state.RuntimeException, RuntimeError)


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph; symbolic axes are names or None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


class Session:
    """A loaded graph, and the provider that really runs it.

    Attributes:
        provider: name of the first provider of the open session, in ONNX Runtime's words.
        threads: threads that one operator may use.
        load_ms: time to open it, milliseconds.
        inputs, outputs: ports of the graph, by name.
        defaults: weights that may be fed, and have values where they are not.
    """

    def __init__(
        self, session: ort.InferenceSession, path: Path, threads: int, load_ms: float
    ) -> None:
        self._session = session
        self._device = "cpu" if session.get_providers()[0] == CPU else "cuda"
        self.path = path
        self.provider: str = session.get_providers()[0]
        self.threads = threads
        self.load_ms = load_ms
        self.inputs = _ports(session.get_inputs())
        self.outputs = _ports(session.get_outputs())
        self.defaults = _ports(session.get_overridable_initializers())

    def run(
        self,
        feeds: Mapping[str, Array | Value],
        fetch: Sequence[str],
        keep: Mapping[str, Value | None] | None = None,
    ) -> tuple[list[Array], list[Value]]:
        """Run the graph once.

        Args:
            feeds: array (cast to the input's type) or kept value for every input; also for those of
                the defaults that are replaced.
            fetch: names of the outputs to copy to the host.
            keep: outputs to leave on the session's device, to be fed again, by name: written into
                the value that is given, or, for None, into a new one.

        Returns:
            The fetched arrays and the kept values, in the order that was asked for.

        Raises:
            EdgelrError: ONNX Runtime refused the inputs, or failed.
        """
        ports = self.inputs | self.defaults
        arrays = {
            name: np.ascontiguousarray(value, dtype=ports[name].dtype)
            for name, value in feeds.items()
            if isinstance(value, np.ndarray)
        }
        try:
            outputs = self._bound_run({**feeds, **arrays}, fetch, keep or {})
        except _MODEL_ERRORS + _DEVICE_ERRORS as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise EdgelrError(
                f"{self.path} failed on {self.provider} with {shapes}: {_one_line(error)} "
                f"Expected a run without an error. Shorten the input, or export the model again."
            ) from error
        return [value.numpy() for value in outputs[: len(fetch)]], outputs[len(fetch) :]

    def end_profile(self) -> list[OperatorTime]:
        """Add up what the nodes did since the session was opened, by operator and provider.

        The session has to be one that was opened with a ``profile``; that file is removed.
        """
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        runs = sum(event["name"] == "model_run" for event in events)
        groups: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                key = (event["args"]["op_name"], event["args"]["provider"])
                groups.setdefault(key, []).append(event["dur"] / 1e3)
        found = [
            OperatorTime(operator, provider, round(len(times) / runs), sum(times) / runs)
            for (operator, provider), times in groups.items()
        ]
        return sorted(found, key=lambda each: -each.milliseconds)

    def zeros(self, name: str, shape: tuple[int, ...]) -> Value:
        """Make a value for an input on the session's device; pages are taken as they are used."""
        array = np.zeros(shape, self.inputs[name].dtype)
        return ort.OrtValue.ortvalue_from_numpy(array, self._device)

    def _bound_run(
        self,
        feeds: Mapping[str, Array | Value],
        fetch: Sequence[str],
        keep: Mapping[str, Value | None],
    ) -> list[Value]:
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, np.ndarray) and name in self.defaults:
                # bind_cpu_input looks names up among the plain inputs only
                fed = ort.OrtValue.ortvalue_from_numpy(value, self._device)
                binding.bind_ortvalue_input(name, fed)
            elif isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in fetch:
            binding.bind_output(name, "cpu")
        for name, place in keep.items():
            if place is None:
                binding.bind_output(name, self._device)
            else:
                binding.bind_ortvalue_output(name, place)
        self._session.run_with_iobinding(binding, _SILENT)
        return list(binding.get_outputs())


def open_session(model_path: Path, execution: Execution = ON_CPU) -> Session:
    """Load a graph, strictly on the provider that was asked for.

    Args:
        model_path: ``.onnx`` file; its external data lies beside it.
        execution: provider, threads, limit of the memory and profile.

    Raises:
        InputError: the file is missing, is no ONNX graph, or the provider's name is unknown.
        ProviderError: the session would run somewhere else.
    """
    provider = execution.provider
    require_offered(provider)
    if not model_path.is_file():
        raise InputError(f"{model_path} does not exist. Expected an ONNX file. Export it again.")
    if provider == "cuda":
        _load_libraries()
    count, start = execution.threads or usable_cores(), time.perf_counter()
    providers = _providers(provider, execution.memory_bytes)
    session = _load(model_path, providers, count, execution)
    load_ms = (time.perf_counter() - start) * 1e3
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise _not_used(PROVIDERS[provider], session.get_providers(), "the session fell back to")
    return Session(session, model_path, count, load_ms)


def require_offered(provider: str) -> None:
    """Refuse a provider that the installed ONNX Runtime does not have.

    Raises:
        InputError: its name is unknown.
        ProviderError: it is not offered.
    """
    if provider not in PROVIDERS:
        raise InputError(f"Unknown provider {provider!r}. Known: {', '.join(PROVIDERS)}.")
    wanted, offered = PROVIDERS[provider], ort.get_available_providers()
    if wanted not in offered:
        raise _not_used(wanted, offered, "this wheel offers only")


@functools.cache
def _load_libraries() -> None:
    """Load CUDA and cuDNN from the packages that pip installs: no search path names them.

    What is missing is told when the session opens; ``preload_dlls`` would print it.
    """
    if hasattr(ort, "preload_dlls"):  # the builds of boards may be older
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _providers(provider: str, memory_bytes: int | None) -> list[tuple[str, dict[str, str]]]:
    """Name the providers with their options; shape arithmetic stays on the CPU."""
    if provider == "cpu":
        return [(CPU, {})]
    limits = {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": str(memory_bytes)}
    return [(PROVIDERS[provider], {} if memory_bytes is None else limits), (CPU, {})]


def _load(
    path: Path,
    providers: list[tuple[str, dict[str, str]]],
    threads: int,
    execution: Execution,
) -> ort.InferenceSession:
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: the rest is for ONNX Runtime's developers
    options.intra_op_num_threads = threads
    options.add_session_config_entry(*_REST_BETWEEN_RUNS)
    options.enable_mem_pattern = False  # it places buffers side by side that could share a place
    if execution.as_written:
        options.add_session_config_entry(*_NO_QUANTIZED_PRODUCTS)
    if execution.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(execution.profile)
    try:
        return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except _MODEL_ERRORS + _DEVICE_ERRORS as error:
        wanted = providers[0][0]
        if _NO_MEMORY in str(error):
            raise EnvironmentProblem(
                f"There is too little memory for {path} on {wanted}: {_one_line(error)} Expected "
                f"room for the weights. Free some, or export with a smaller --keep or --max-size."
            ) from error
        if wanted != CPU and isinstance(error, _DEVICE_ERRORS):
            raise _not_used(wanted, [], f"opening it failed: {_one_line(error)}") from error
        raise InputError(
            f"ONNX Runtime {ort.__version__} cannot load {path}: {_one_line(error)} "
            f"Expected a complete ONNX graph. Copy the folder again, or export the model again."
        ) from error


def _not_used(wanted: str, found: Sequence[str], problem: str) -> ProviderError:
    wheels = [name for name in _WHEELS if any(metadata.distributions(name=name))]
    return ProviderError(
        f"Asked for {wanted}, but {problem} {', '.join(found)} "
        f"(installed: {', '.join(wheels) or 'no wheel'} {ort.__version__}). "
        f"Expected a session that runs on {wanted}. Install 'onnxruntime-gpu[cuda,cudnn]', and no "
        f"onnxruntime beside it (on a Jetson, NVIDIA's own build), or pass --provider cpu."
    )


def _ports(arguments: Sequence[Any]) -> dict[str, Port]:
    return {
        item.name: Port(item.name, _DTYPES.get(item.type, np.dtype(object)), tuple(item.shape))
        for item in arguments
    }


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 400, placeholder="…")
