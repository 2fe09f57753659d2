"""Inputs of a foreign graph: read from an ``.npz`` file, or drawn at random.

In memory a set of samples is an array for every input, and its first axis counts the samples: what
is left without it is what one run is fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array
from edgelr.data.sizes import choose_sizes

Samples: TypeAlias = dict[str, Array]

SAMPLES = "edgelr/inputs.npz"  # in a bundle: what it is timed and, by default, judged on
RANDOM_SAMPLES = 64
_READ_ERRORS = (OSError, ValueError, EOFError, BadZipFile)


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input of a graph.

    Attributes:
        name: name of the input.
        dtype: type of the elements; object where numpy has none.
        shape: sizes, or names of free axes; None where an axis has no name.
        rows: number of rows of the smallest table that it is an index into; None where it is none.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    rows: int | None = None


def count(samples: Samples) -> int:
    """Count the samples."""
    return len(next(iter(samples.values())))


def take(samples: Samples, start: int, stop: int) -> Samples:
    """Take samples ``start`` to ``stop``."""
    return {name: array[start:stop] for name, array in samples.items()}


def feeds(samples: Samples, index: int) -> Samples:
    """Return the feeds of one run."""
    return {name: array[index, ...] for name, array in samples.items()}  # also of scalars, arrays


def read_samples(path: Path, inputs: Sequence[GraphInput]) -> Samples:
    """Read an ``.npz`` with one array per input, by the name of the input.

    The first axis of an array counts the samples. It is the first axis of the input itself where
    that is 1 or free, so that every sample is a batch of one; or an axis more than the input has.

    Raises:
        InputError: the file cannot be read, or does not fit the inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _READ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({error}). Expected an .npz file with the arrays "
            f"{', '.join(each.name for each in inputs)}, as numpy.savez writes it."
        ) from error
    names = {each.name for each in inputs}
    if arrays.keys() != names:
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}. Expected the inputs of the "
            f"graph and nothing else: {', '.join(sorted(names))}. Save one array for each."
        )
    samples = {each.name: _with_samples_first(path, each, arrays[each.name]) for each in inputs}
    sizes = {name: len(array) for name, array in samples.items()}
    if len(set(sizes.values())) > 1 or not min(sizes.values()):
        raise InputError(
            f"{path} holds different numbers of samples: {sizes}. Expected the same number in "
            f"every array, along its first axis."
        )
    return samples


def require_arrays(path: Path) -> None:
    """Refuse a file that holds no arrays; none of them is read.

    Raises:
        InputError: it is missing, no ``.npz`` file, or empty.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = len(file.files)
    except (*_READ_ERRORS, AttributeError, TypeError) as error:  # a single array has no names
        raise InputError(
            f"{path} cannot be read ({error}). Expected an .npz file with an array for every input "
            f"of the graph, as numpy.savez writes it."
        ) from error
    if not found:
        raise InputError(f"{path} holds no arrays. Expected one for every input of the graph.")


def write_samples(path: Path, samples: Samples) -> None:
    """Write samples so that ``load_samples`` reads them."""
    np.savez(path, allow_pickle=False, **samples)


def load_samples(path: Path) -> Samples:
    """Read the samples that ``write_samples`` wrote.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _READ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({error}). Expected the inputs that edgelr wrote into the "
            f"bundle. Copy the folder again, or export the model again."
        ) from error


def random_samples(inputs: Sequence[GraphInput], seed: int) -> Samples:
    """Draw inputs from the graph's own shapes and types.

    Indices are uniform over their table. Numbers are from a normal distribution. Other whole
    numbers and truth values, which are masks as a rule, are 1.

    Raises:
        InputError: an input has a type that cannot be drawn.
    """
    generator = np.random.default_rng(seed)
    samples = {}
    shapes = choose_sizes([each.shape for each in inputs])
    for each, shape in zip(inputs, shapes, strict=True):
        samples[each.name] = _drawn(each, (RANDOM_SAMPLES, *shape), generator)
    return samples


def _drawn(each: GraphInput, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if each.dtype.kind == "f":
        return generator.standard_normal(shape).astype(each.dtype)
    if each.dtype.kind in "iu":
        if each.rows is None:
            return np.ones(shape, each.dtype)
        return generator.integers(each.rows, size=shape).astype(each.dtype)
    if each.dtype.kind == "b":
        return np.ones(shape, each.dtype)
    raise InputError(
        f"The input {each.name} has a type for which no values can be drawn. Expected numbers or "
        f"truth values. Cut the graph behind what turns it into numbers."
    )


def _with_samples_first(path: Path, each: GraphInput, array: Array) -> Array:
    """Check an array against its input, and give it an axis of samples of its own."""
    shape = each.shape
    if array.ndim == len(shape) and shape and not (isinstance(shape[0], int) and shape[0] > 1):
        array = array[:, None]
    fits = array.ndim == len(shape) + 1 and all(
        not isinstance(size, int) or size < 0 or size == found
        for size, found in zip(shape, array.shape[1:], strict=True)
    )
    same_kind = np.can_cast(array.dtype, each.dtype, "same_kind")
    if not fits or not same_kind:
        wanted = ", ".join(str(size) for size in shape)
        raise InputError(
            f"{path} has {each.name} as {array.dtype} of shape {array.shape}. Expected "
            f"{each.dtype} of shape (samples, {wanted}), or without the axis of samples where the "
            f"first axis of the input is 1 or free."
        )
    return array.astype(each.dtype, copy=False)
