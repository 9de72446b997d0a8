"""KServe v2 tensors: between their wire forms (raw bytes, JSON lists, typed protobuf fields) and numpy.

Wire forms follow the binary tensor data extension of KServe v2: little-endian, row-major; each BYTES element is
preceded by its 4-byte length; BOOL is one byte per element.
"""

from __future__ import annotations

import base64
import math
import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.contract import NUMPY_TYPES, Datatype
from dimml.errors import InvalidTensorError

Array = npt.NDArray[Any]
#: Raw bytes, or elements as nested lists (JSON) or one flat list (typed protobuf contents).
Payload = bytes | memoryview | Sequence[Any]

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input as a caller sent it: only the types of its fields have been checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    payload: Payload
    #: Whether its BYTES elements are base64 (``content_type: base64``).
    base64: bool = False


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output. For BYTES, ``array`` has dtype object with ``bytes`` elements."""

    name: str
    datatype: Datatype
    array: Array


def decode(tensor: InputTensor, datatype: Datatype, model: str) -> Array:
    """Decode the tensor's elements to ``tensor.shape``, in ``NUMPY_TYPES[datatype]``; raw numbers are not copied.

    Raises InvalidTensorError unless the payload holds exactly the elements that the shape says. Memory is allocated for
    what was really sent, never for what a shape claims.
    """
    count = math.prod(tensor.shape)
    if isinstance(tensor.payload, bytes | memoryview):
        if datatype == "BYTES":
            flat = _objects(split_bytes(tensor.name, tensor.payload, count))
        else:
            flat = _numbers_from_raw(tensor, tensor.payload, datatype, model)
    else:
        flat = _from_elements(tensor.name, datatype, tensor.payload, tensor.shape)
    if tensor.base64:
        if datatype != "BYTES":
            raise InvalidTensorError(
                f"input '{tensor.name}' of type {datatype} cannot have content_type base64, which is for BYTES",
                field=tensor.name,
            )
        flat = _objects([_from_base64(tensor.name, element) for element in flat])
    return flat.reshape(tensor.shape)


def _from_base64(name: str, element: bytes | memoryview) -> bytes:
    # Line breaks, as MIME and the base64 program make them, are no fault.
    text = bytes(element).translate(None, b"\r\n")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidTensorError(
            f"input '{name}' has content_type base64, but is not base64 (RFC 4648, section 4)", field=name
        ) from error


def to_raw(output: OutputTensor) -> bytes:
    """Encode an output in the binary wire form."""
    if output.datatype == "BYTES":
        elements: Iterable[bytes] = output.array.ravel().tolist()
        return b"".join(_LENGTH.pack(len(element)) + element for element in elements)
    return np.ascontiguousarray(output.array, dtype=NUMPY_TYPES[output.datatype]).tobytes()


def to_elements(output: OutputTensor) -> list[Any]:
    """Encode an output as one flat list for JSON.

    Raises InvalidTensorError if JSON cannot express it: a number that is not finite, bytes that are not UTF-8.
    """
    try:
        if output.datatype == "BYTES":
            return [element.decode() for element in output.array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise _not_json(output.name, "bytes that are not UTF-8") from error
    if output.datatype in ("FP32", "FP64") and not np.isfinite(output.array).all():
        raise _not_json(output.name, "a number that is not finite")
    return list(output.array.ravel().tolist())


def split_bytes(name: str, raw: bytes | memoryview, count: int) -> list[bytes | memoryview]:
    """Split a BYTES tensor into its elements; they are views if ``raw`` is on disk, so that they stay there.

    Raises InvalidTensorError unless there are exactly ``count``.
    """
    view = memoryview(raw)
    on_disk = isinstance(view.obj, mmap.mmap)
    elements: list[bytes | memoryview] = []
    position = 0
    while position < len(view):
        if len(view) - position < _LENGTH.size:
            raise InvalidTensorError(
                f"incomplete string length indicator for inference input '{name}', expecting "
                f"{_LENGTH.size} bytes but only {len(view) - position} bytes available",
                field=name,
            )
        (length,) = _LENGTH.unpack_from(view, position)
        position += _LENGTH.size
        if length > len(view) - position:
            raise InvalidTensorError(
                f"incomplete string data for inference input '{name}', expecting string of length {length} "
                f"but only {len(view) - position} bytes available",
                field=name,
            )
        if len(elements) == count:
            raise InvalidTensorError(
                f"unexpected number of string elements {count + 1} for inference input '{name}', expecting {count}",
                field=name,
            )
        element = view[position : position + length]
        elements.append(element if on_disk else bytes(element))
        position += length
    if len(elements) != count:
        raise InvalidTensorError(
            f"expected {count} string elements for inference input '{name}', got {len(elements)}", field=name
        )
    return elements


def _numbers_from_raw(tensor: InputTensor, raw: bytes | memoryview, datatype: Datatype, model: str) -> Array:
    dtype = NUMPY_TYPES[datatype]
    size, expected = len(raw), math.prod(tensor.shape) * dtype.itemsize
    if size != expected:
        raise InvalidTensorError(
            f"input byte size mismatch for input '{tensor.name}' for model '{model}'. Expected {expected}, got {size}",
            field=tensor.name,
        )
    if datatype == "BOOL":
        # A byte that is neither 0 nor 1 must not become a bool with that bit pattern.
        return np.asarray(np.frombuffer(raw, np.uint8) != 0)
    flat = np.frombuffer(raw, dtype)
    # A tensor may be unaligned: where it begins in an HTTP body depends on what precedes it.
    return flat if flat.flags.aligned else flat.copy()


def _from_elements(name: str, datatype: Datatype, data: Sequence[Any], shape: Sequence[int]) -> Array:
    elements = _flattened(name, data, shape)
    types = set(map(type, elements))
    if datatype == "BYTES" and types <= {str, bytes}:
        return _objects([e.encode("utf-8", "surrogatepass") if isinstance(e, str) else e for e in elements])
    try:
        if datatype == "BOOL" and types <= {bool}:
            return np.array(elements, np.bool_)
        if datatype in ("FP32", "FP64") and types <= {int, float}:
            # Numbers too large for FP32 become infinite, and the modality non_finite.
            with np.errstate(over="ignore"):
                return np.array(elements, np.float64).astype(NUMPY_TYPES[datatype])
        if datatype == "UINT8" and types <= {int}:
            # Raises ValueError for what is not from 0 to 255; several times as fast as an array of wide integers.
            return np.frombuffer(bytearray(elements), np.uint8)
    except (OverflowError, ValueError):
        pass
    raise InvalidTensorError(
        f"Unable to parse 'data' of input '{name}': an element is not a value of type {datatype}", field=name
    )


def _flattened(name: str, data: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    """Flatten nested lists in order; level by level, so that depth costs no recursion.

    Raises InvalidTensorError unless there are as many leaves as ``shape`` says, before building or scanning any level
    with more entries than the shape could have.
    """
    count, most = math.prod(shape), math.prod(max(1, dimension) for dimension in shape)
    level, size = data, len(data)
    while 0 < size <= most and set(map(type, level)) == {list}:
        size = sum(map(len, level))
        if size <= most:
            level = list(chain.from_iterable(level))
    if size != count:
        raise InvalidTensorError(
            f"Unable to parse 'data' of input '{name}': Shape does not match true shape of 'data' field: "
            f"expected {count} elements, got {size}",
            field=name,
        )
    return level


def _objects(elements: Sequence[bytes | memoryview]) -> Array:
    # np.array(elements) would make an S array, which loses trailing zero bytes.
    array = np.empty(len(elements), np.object_)
    for index, element in enumerate(elements):  # One by one: numpy would convert a view element by element.
        array[index] = element
    return array


def _not_json(name: str, what: str) -> InvalidTensorError:
    return InvalidTensorError(
        f"output '{name}' holds {what}, which JSON cannot express: request it with binary_data", field=name
    )
