"""Bodies of ``POST /v2/models/…/infer``: JSON, with the binary tensor data extension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from dimml.errors import RequestError, TooLargeError
from dimml.request_parameters import abstention_of, damage_of, explain_of, route_key, timeout_of
from dimml_server.kserve.messages import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    check_request_parameters,
    check_shape,
    check_tensor_parameters,
    check_text,
    class_count_of,
    is_base64,
)
from dimml_server.kserve.tensors import InputTensor, to_elements, to_raw

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
#: Parsing JSON blocks all other requests, for about 30 ms per MiB, or 200 ms if every number is in a list of its own;
#: it also takes up to about twenty times its length in memory. Binary tensors cost neither.
MAX_JSON_BYTES: Final = 2 * 2**20


@dataclass(frozen=True, slots=True)
class HttpInfer:
    """A request, and which of its outputs are returned in binary."""

    request: InferRequest
    binary_by_default: bool
    binary: Mapping[str, bool]


def parse_infer(body: bytes | memoryview, header_length: str | None, model: str, version: str) -> HttpInfer:
    """Read an inference request; binary inputs are views of ``body``. Raises RequestError, worded as Triton's."""
    length = _header_length(header_length, len(body))
    if length > MAX_JSON_BYTES:
        raise TooLargeError(
            f"the JSON part has {length} bytes, at most {MAX_JSON_BYTES} are taken: send large tensors as binary data "
            f"('binary_data_size' of the input and {HEADER_LENGTH}; tritonclient: binary_data=True)"
        )
    document = parse_object(body[:length] if length < len(body) else body)
    parameters = parameters_of(document)
    check_request_parameters(parameters)
    binary_by_default = _boolean(parameters, "binary_data_output")
    inputs, position = [], length
    for entry in _objects(document, "inputs", required=True):
        tensor, size = _input(entry, memoryview(body)[position:])
        inputs.append(tensor)
        position += size
    if position != len(body):
        raise RequestError(f"unexpected additional input data for model '{model}'")
    outputs, binary = [], {}
    for entry in _objects(document, "outputs", required=False):
        name, own = _text(entry, "name"), _object(entry, "parameters")
        check_tensor_parameters(name, own)
        outputs.append(RequestedOutput(name, class_count_of(name, own)))
        binary[name] = _boolean(own, "binary_data", binary_by_default)
    request = InferRequest(
        model=model,
        version=version,
        request_id=_text(document, "id", ""),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        timeout_s=timeout_of(parameters),
        route_key=route_key(parameters),
        audio_track=parameters.get("audio_track"),
        video_track=parameters.get("video_track"),
        explain=explain_of(parameters),
        damage=damage_of(parameters),
        abstain=abstention_of(parameters),
    )
    return HttpInfer(request, binary_by_default, binary)


def format_infer(response: InferResponse, asked: HttpInfer) -> tuple[bytes, int | None]:
    """Format an answer's body, and return the length of its JSON part if binary tensors follow it.

    Raises InvalidTensorError if an output cannot be written as JSON.
    """
    described, blobs = [], []
    for output in response.outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.array.shape)}
        if asked.binary.get(output.name, asked.binary_by_default):
            blobs.append(to_raw(output))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_elements(output)
        described.append(entry)
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.request_id:
        document["id"] = response.request_id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    header = json.dumps({**document, "outputs": described}, separators=(",", ":")).encode()
    return (header, None) if not blobs else (b"".join((header, *blobs)), len(header))


def parse_object(body: bytes | memoryview) -> dict[str, Any]:
    """Parse a JSON object; an empty body is an empty object. Raises RequestError."""
    if not body:
        return {}
    try:
        # NaN is accepted, since tritonclient writes it for NaN in a masked slot.
        document = from_json(bytes(body), allow_inf_nan=True)
    except ValueError as error:
        raise RequestError(f"failed to parse the request JSON buffer: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("failed to parse the request JSON buffer: it must be a JSON object")
    return document


def parameters_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the ``parameters`` of a request's JSON. Raises RequestError."""
    return _object(document, "parameters")


def _header_length(header: str | None, total: int) -> int:
    if header is None:
        return total
    if not (header.isascii() and header.isdigit() and len(header) <= 18):
        raise RequestError(f"Unable to parse {HEADER_LENGTH}, got: {header[:40]}")
    if int(header) > total:
        raise RequestError(f"inference header size should be in range (0, {total}), got: {header}")
    return int(header)


def _input(entry: dict[str, Any], rest: memoryview) -> tuple[InputTensor, int]:
    name, datatype, parameters = _text(entry, "name"), _text(entry, "datatype"), _object(entry, "parameters")
    check_tensor_parameters(name, parameters)
    shape = entry.get("shape")
    if not isinstance(shape, list) or any(type(dimension) is not int for dimension in shape):
        raise RequestError(f"Unable to parse 'shape' of input '{name}': it must be a list of whole numbers")
    checked = check_shape(name, shape)
    size, data = parameters.get("binary_data_size"), entry.get("data")
    if size is None:
        if not isinstance(data, list):
            raise RequestError(f"Unable to parse 'data' of input '{name}': it must be a list")
        return InputTensor(name, datatype, checked, data, is_base64(parameters)), 0
    if data is not None:
        raise RequestError(f"input '{name}' has both 'data' and 'binary_data_size'")
    if type(size) is not int or size < 0:
        raise RequestError(f"Unable to parse 'binary_data_size' of input '{name}': it must be a whole number")
    if size > len(rest):
        raise RequestError(
            f"unexpected size for input '{name}', expecting {size - len(rest)} additional bytes: the body must hold "
            f"the JSON header ({HEADER_LENGTH} bytes) and then every binary input"
        )
    return InputTensor(name, datatype, checked, rest[:size], is_base64(parameters)), size


def _text(entry: dict[str, Any], key: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise RequestError(f"Unable to parse '{key}': it must be a string")
    return check_text(key, value)


def _boolean(entry: dict[str, Any], key: str, default: bool = False) -> bool:
    value = entry.get(key, default)
    if not isinstance(value, bool):
        raise RequestError(f"Unable to parse '{key}': it must be true or false")
    return value


def _object(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise RequestError(f"Unable to parse '{key}': it must be an object")
    return value


def _objects(entry: dict[str, Any], key: str, *, required: bool) -> list[dict[str, Any]]:
    value = entry.get(key, None if required else [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RequestError(f"Unable to parse '{key}': it must be a list of objects")
    return value
