"""Validation of a request's tensors against a model's contract, with Triton's own error messages.

The wording follows ``InferenceRequest::Normalize`` and ``ValidateRequestInputs`` of triton-inference-server/core
(``src/infer_request.cc``) and ``src/model.cc``, so that searching for a message leads to an explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dimml.contract import ModelSpec, TensorSpec
from dimml.errors import InvalidTensorError
from dimml_server.kserve.messages import InferRequest, RequestedOutput
from dimml_server.kserve.tensors import Array, InputTensor, decode


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked tensors by name, each ``[batch, *dims]`` (``dims`` for a model without batching)."""

    tensors: dict[str, Array]
    #: Rows of the request; 1 for a model without batching.
    batch: int


def checked_inputs(request: InferRequest, spec: ModelSpec) -> Inputs:
    """Decode the inputs of ``request``. Raises InvalidTensorError naming the tensor.

    A model whose inputs are all optional needs at least one of them.
    """
    known = {tensor.name: tensor for tensor in spec.inputs}
    given: dict[str, InputTensor] = {}
    for tensor in request.inputs:
        if tensor.name not in known:
            raise InvalidTensorError(
                f"unexpected inference input '{tensor.name}' for model '{spec.name}'", field=tensor.name
            )
        if tensor.name in given:
            raise InvalidTensorError(
                f"input '{tensor.name}' already exists in request for model '{spec.name}'", field=tensor.name
            )
        given[tensor.name] = tensor
    _check_count(given, spec)
    for name, tensor in given.items():
        _check_kind(tensor, known[name], spec)
    batch = _batch(given, spec)
    tensors = {name: decode(tensor, known[name].datatype, spec.name) for name, tensor in given.items()}
    return Inputs(tensors, batch)


def checked_outputs(request: InferRequest, spec: ModelSpec) -> tuple[RequestedOutput, ...]:
    """Return the outputs to give back: those requested, in that order, or all. Raises InvalidTensorError."""
    if not request.outputs:
        return tuple(RequestedOutput(tensor.name) for tensor in spec.outputs)
    known = {tensor.name for tensor in spec.outputs}
    seen: set[str] = set()
    for output in request.outputs:
        if output.name not in known:
            raise InvalidTensorError(
                f"unexpected inference output '{output.name}' for model '{spec.name}'", field=output.name
            )
        if output.name in seen:
            raise InvalidTensorError(f"output '{output.name}' is requested twice", field=output.name)
        seen.add(output.name)
    return request.outputs


def _check_count(given: dict[str, InputTensor], spec: ModelSpec) -> None:
    required = [tensor.name for tensor in spec.inputs if not tensor.optional]
    missing = [name for name in required if name not in given]
    if not missing and given:
        return
    if len(required) == len(spec.inputs):
        expected = f"{len(required)} inputs"
    else:
        expected = f"number of inputs between {max(1, len(required))} and {len(spec.inputs)}"
    wanted = f"missing required inputs {missing}" if missing else f"needs one of {[t.name for t in spec.inputs]}"
    raise InvalidTensorError(
        f"expected {expected} but got {len(given)} inputs for model '{spec.name}'. "
        f"Got inputs {list(given)}, but {wanted}.",
        field=missing[0] if missing else None,
    )


def _batch(given: dict[str, InputTensor], spec: ModelSpec) -> int:
    if spec.max_batch_size == 0:
        return 1
    batch = next(iter(given.values())).shape[0]
    for name, tensor in given.items():
        if tensor.shape[0] != batch:
            raise InvalidTensorError(
                f"input '{name}' batch size does not match other inputs for '{spec.name}'", field=name
            )
    if batch > spec.max_batch_size:
        raise InvalidTensorError(
            f"inference request batch-size must be <= {spec.max_batch_size} for '{spec.name}', got {batch}"
        )
    if batch == 0:
        raise InvalidTensorError(f"inference request batch-size must be at least 1 for '{spec.name}'")
    return batch


def _check_kind(tensor: InputTensor, wanted: TensorSpec, spec: ModelSpec) -> None:
    if tensor.datatype != wanted.datatype:
        raise InvalidTensorError(
            f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model '{spec.name}' expects "
            f"'{wanted.datatype}'",
            field=tensor.name,
        )
    if spec.max_batch_size and not tensor.shape:
        raise InvalidTensorError(
            f"input '{tensor.name}' has no shape but model requires batch dimension for '{spec.name}'",
            field=tensor.name,
        )
    own = tensor.shape[1:] if spec.max_batch_size else tensor.shape
    if len(own) != len(wanted.dims) or any(w not in (-1, d) for d, w in zip(own, wanted.dims, strict=True)):
        expected = (-1, *wanted.dims) if spec.max_batch_size else wanted.dims
        raise InvalidTensorError(
            f"unexpected shape for input '{tensor.name}' for model '{spec.name}'. "
            f"Expected {_dims(expected)}, got {_dims(tensor.shape)}",
            field=tensor.name,
        )


def _dims(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
