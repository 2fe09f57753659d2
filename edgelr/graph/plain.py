"""Write ONNX files without the package onnx, which a board does not have.

The format is protobuf: a message is a row of fields, each with its number in ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgelr.compress.block_quantized import Blocks

MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators
OPSET, IR_VERSION = 17, 8  # known to every ONNX Runtime since 1.12

Shape: TypeAlias = tuple[int | str, ...]

_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "float16": 10}  # TensorProto.DataType
_FLOAT, _INT = 1, 2  # AttributeProto.AttributeType


class PlainGraph:
    """A graph that is written node by node.

    Args:
        name: name of the graph.
        dtype: type of its inputs and its output, as numpy calls it.
        shape: shape of its inputs and its output.
        inputs: names of its inputs.
    """

    def __init__(self, name: str, dtype: str, shape: Shape, inputs: Sequence[str]) -> None:
        self.dtype, self._shape = dtype, shape
        self._fields = [_text(2, name), *(_field(11, self._port(each)) for each in inputs)]

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer; return its name."""
        sizes = b"".join(_number(1, size) for size in array.shape)
        kind, content = _number(2, _TYPES[array.dtype.name]), _field(9, array.tobytes())
        self._fields.append(_field(5, sizes + kind + _text(8, name) + content))
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, int | float] | None = None,
        domain: str = "",
        outputs: int = 1,
    ) -> str:
        """Add a node; return the name of its first output.

        Args:
            operator: operator, such as ``MatMul``.
            inputs: names of its inputs.
            attributes: numbers that it has as attributes.
            domain: domain of the operator.
            outputs: number of outputs; nothing reads any but the first.
        """
        name = f"node{len(self._fields)}"
        found = [f"{name}/{index}" for index in range(outputs)]
        told = (_field(5, _attribute(*each)) for each in (attributes or {}).items())
        named = [_text(3, name), _text(4, operator), *told, _text(7, domain)]
        ports = [*(_text(1, each) for each in inputs), *(_text(2, each) for each in found)]
        self._fields.append(_field(1, b"".join([*ports, *named])))
        return found[0]

    def save(self, path: Path, output: str) -> None:
        """Write the graph, whose output is a value of this name."""
        graph = b"".join([*self._fields, _field(12, self._port(output))])
        opsets = (
            _field(8, _text(1, domain) + _number(2, version))
            for domain, version in (("", OPSET), (MICROSOFT, 1))
        )
        header = _number(1, IR_VERSION) + _text(2, "edgelr")
        path.write_bytes(header + _field(7, graph) + b"".join(opsets))

    def _port(self, name: str) -> bytes:
        sizes = (
            _field(1, _number(1, size) if isinstance(size, int) else _text(2, size))
            for size in self._shape
        )
        tensor = _number(1, _TYPES[self.dtype]) + _field(2, b"".join(sizes))
        return _text(1, name) + _field(2, _field(1, tensor))


def product_attributes(stored: Blocks, accuracy_level: int) -> dict[str, int]:
    """Spell the attributes of the MatMulNBits that multiplies by a quantized matrix."""
    return {
        "K": stored.in_features,
        "N": stored.out_features,
        "bits": stored.layout.bits,
        "block_size": stored.layout.block_size,
        "accuracy_level": accuracy_level,
    }


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, _INT)
    return _text(1, name) + b"\x15" + np.float32(value).tobytes() + _number(20, _FLOAT)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: text, an array, or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    """A field of one integer that is not negative."""
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have the eighth."""
    found = []
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
