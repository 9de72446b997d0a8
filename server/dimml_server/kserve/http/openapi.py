"""OpenAPI descriptions of the KServe v2 calls whose bodies FastAPI cannot describe: they may hold binary tensors."""

from __future__ import annotations

from typing import Any, Final

from dimml.contract import NUMPY_TYPES

_STRING: Final = {"type": "string"}
_PARAMETERS: Final = {"type": "object", "additionalProperties": True}
_SHAPE: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATA: Final = {"type": "array", "items": {}, "description": "Elements, nested or flat; left out of a binary tensor."}
_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _STRING,
        "datatype": {"type": "string", "enum": list(NUMPY_TYPES)},
        "shape": _SHAPE,
        "data": _DATA,
        "parameters": {**_PARAMETERS, "description": "binary_data_size: the tensor's bytes follow the JSON."},
    },
}
_REQUEST: Final = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {**_STRING, "description": "Comes back in the answer."},
        "parameters": {**_PARAMETERS, "description": "timeout_ms, timeout (µs), binary_data_output."},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "description": "Those to give back, in this order; by default all.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": _STRING,
                    "parameters": {**_PARAMETERS, "description": "binary_data, classification."},
                },
            },
        },
    },
}
_RESPONSE: Final = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": _STRING,
        "model_version": _STRING,
        "id": _STRING,
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": _STRING}}
_BINARY: Final = {
    "type": "string",
    "format": "binary",
    "description": "The JSON, Inference-Header-Content-Length bytes of it, and then every binary tensor.",
}

#: ``openapi_extra`` of inference.
INFER_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
_MEANINGS: Final = {
    400: "Malformed, or a tensor that does not fit the model.",
    401: "No API key, or not one of the server's, where keys are configured.",
    403: "The key is not an admin key.",
    404: "No such model or version.",
    408: "The body did not arrive in time.",
    413: "Over a limit on size or length.",
    415: "The body's Content-Encoding is none that is undone; Accept-Encoding names those.",
    422: "Nothing that was sent can be used, or a value is out of range.",
    429: "The queue is full, or too many bodies are being sent; try again after Retry-After seconds.",
    500: "A fault of the server; the request id in the message finds it in the log.",
    501: "Not supported.",
    503: "Every encoder failed, or the server is not ready.",
    504: "Every encoder was late, or the request's time ran out.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Build ``responses`` for these error statuses, and for any other.

    The ``default`` also keeps FastAPI from listing a 422 of its own for every path with a parameter.
    """
    content = {"application/json": {"schema": _ERROR}}
    listed: dict[int | str, str] = {status: _MEANINGS[status] for status in statuses}
    listed["default"] = "Any other error."
    return {status: {"description": meaning, "content": content} for status, meaning in listed.items()}


#: ``responses`` of calls about one model.
MODEL_ERRORS: Final = errors(400, 401, 404, 422, 500, 503)
#: ``responses`` of readiness, whose body is the same as with 200.
NOT_READY: Final[dict[int | str, dict[str, Any]]] = {503: {"description": "Not ready."}}
#: ``responses`` of a call that has a body.
BODY_ERRORS: Final = errors(400, 401, 408, 413, 415, 422, 429, 500, 503)
#: ``responses`` of loading and unloading.
CONTROL_ERRORS: Final = errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 501)

#: ``responses`` of inference.
INFER_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The outputs; as application/octet-stream where one of them is binary.",
        "content": {
            "application/json": {"schema": _RESPONSE},
            "application/octet-stream": {"schema": _BINARY},
        },
    },
    **errors(*(status for status in _MEANINGS if status != 403)),
}
