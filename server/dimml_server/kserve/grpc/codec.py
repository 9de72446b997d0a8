"""``ModelInferRequest`` and ``ModelInferResponse``, from and to protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from dimml.errors import RequestError
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
from dimml_server.kserve.tensors import InputTensor, Payload, to_raw

#: The field of ``InferTensorContents`` for each datatype, according to the comments in the protocol's definition.
_CONTENTS_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parse_infer(message: service_pb2.ModelInferRequest) -> InferRequest:
    """Read an inference request, with ``raw_input_contents`` or typed contents. Raises RequestError."""
    model = check_text("model_name", message.model_name)
    parameters = parameters_of(message.parameters)
    check_request_parameters(parameters)
    raw = message.raw_input_contents
    inputs: list[InputTensor] = []
    for index, entry in enumerate(message.inputs):
        name, datatype = check_text("name", entry.name), check_text("datatype", entry.datatype)
        own = parameters_of(entry.parameters)
        check_tensor_parameters(name, own)
        if entry.HasField("contents"):
            if raw:
                raise RequestError(
                    "contents field must not be specified when using raw_input_contents for "
                    f"'{name}' for model '{model}'"
                )
            payload: Payload = _typed(entry.contents, name, datatype)
        elif index < len(raw):
            payload = raw[index]
        else:
            raise RequestError(f"unable to find data for input tensor '{name}' for model '{model}' in request.")
        inputs.append(InputTensor(name, datatype, check_shape(name, entry.shape), payload, is_base64(own)))
    if len(raw) > len(inputs):
        raise RequestError(f"unexpected additional input data for model '{model}'")
    outputs = []
    for requested in message.outputs:
        own = parameters_of(requested.parameters)
        name = check_text("name", requested.name)
        check_tensor_parameters(name, own)
        outputs.append(RequestedOutput(name, class_count_of(name, own)))
    return InferRequest(
        model=model,
        version=check_text("model_version", message.model_version),
        request_id=check_text("id", message.id),
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


def format_infer(response: InferResponse) -> service_pb2.ModelInferResponse:
    """Format an answer, its tensors in ``raw_output_contents``."""
    message = service_pb2.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.request_id
    )
    for output in response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
        message.raw_output_contents.append(to_raw(output))
    for name, value in response.parameters.items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        elif isinstance(value, str):
            message.parameters[name].string_param = value
        else:
            message.parameters[name].double_param = value
    return message


def _typed(contents: service_pb2.InferTensorContents, name: str, datatype: str) -> list[Any]:
    wanted = _CONTENTS_FIELDS.get(datatype)
    for field, values in contents.ListFields():
        if field.name != wanted:
            raise RequestError(
                f"unexpected explicit tensor data for input '{name}': {datatype} is given in {wanted}, "
                f"not in {field.name}"
                if wanted
                else f"input '{name}' of type '{datatype}' must be given in raw_input_contents"
            )
        return list(values)
    return []


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a map of ``InferParameter`` or ``ModelRepositoryParameter``."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param") for key, value in parameters.items()
    }
