"""Triton's ``onnxruntime`` backend in Python, so that servers without the C++ backend can run the same repository.

Triton loads ``backends/<name>/model.py`` as the backend that ``config.pbtxt`` names. It supports the C++ backend's
parameters about threads. Like the entry models, it needs dimml's core in Triton's Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from dimml.errors import first_line
from dimml.system.cpu import exact_int8_sums
from dimml.system.outbound import import_quietly
from dimml.triton.probe import refuse_corrupting_numpy

_ORT_ERROR = 3
#: Attributes of ``onnxruntime.ExecutionMode`` by the parameter's value.
_EXECUTION_MODES = {"0": "ORT_SEQUENTIAL", "1": "ORT_PARALLEL"}


class TritonPythonModel:
    """One instance of one model: one session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the session. Raises TritonModelException, which Triton shows as the reason of a failed load."""
        refuse_corrupting_numpy(pb_utils)
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._dtypes = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }
        self._batched = config["max_batch_size"] > 0
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._ort = ort = import_quietly("onnxruntime")
        options = _options(ort, config)
        try:
            self._session = ort.InferenceSession(path, options, providers=_providers(ort, args))
        except Exception as error:
            raise pb_utils.TritonModelException(f"ONNX Runtime cannot load {path}: {first_line(error)}") from error
        _check_names("input", self._inputs, [value.name for value in self._session.get_inputs()])
        _check_names("output", self._outputs, [value.name for value in self._session.get_outputs()])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests together; if that fails, each alone, so that a bad one fails no other."""
        feeds = [self._feed(request) for request in requests]
        if self._batched and len(feeds) > 1:
            try:
                return self._run_together(feeds)
            except Exception as error:
                pb_utils.Logger.log_verbose(f"a batch of {len(feeds)} requests failed: {first_line(error)}")
        return [self._run_alone(feed) for feed in feeds]

    def _feed(self, request: Any) -> dict[str, Any]:
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _run_together(self, feeds: list[dict[str, Any]]) -> list[Any]:
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        outputs = [np.split(output, ends) for output in self._run(joined)]
        return [self._response(list(rows)) for rows in zip(*outputs, strict=True)]

    def _run_alone(self, feed: dict[str, Any]) -> Any:
        try:
            return self._response(self._run(feed))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ONNX Runtime: {first_line(error)}"))

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        options = self._ort.RunOptions()
        options.log_severity_level = 4  # Errors of a run go to the caller.
        outputs: list[Any] = self._session.run(self._outputs, feed, options)
        return outputs

    def _response(self, arrays: list[Any]) -> Any:
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array, self._dtypes[name]))
            for name, array in zip(self._outputs, arrays, strict=True)
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _options(ort: ModuleType, config: dict[str, Any]) -> Any:
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.log_severity_level = _ORT_ERROR
    options.intra_op_num_threads = _count(parameters, "intra_op_thread_count")
    options.inter_op_num_threads = _count(parameters, "inter_op_thread_count")
    mode = parameters.get("execution_mode", "0")
    if mode not in _EXECUTION_MODES:
        raise pb_utils.TritonModelException(f"parameter execution_mode must be 0 or 1, not {mode!r}")
    options.execution_mode = getattr(ort.ExecutionMode, _EXECUTION_MODES[mode])
    # A spinning thread takes its core from the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for entry in exact_int8_sums().items():
        options.add_session_config_entry(*entry)
    return options


def _count(parameters: dict[str, str], name: str) -> int:
    """Read a number of threads; 0, the default, lets ONNX Runtime choose."""
    text = parameters.get(name, "0")
    if not text.isascii() or not text.isdigit():
        raise pb_utils.TritonModelException(f"parameter {name} must be a whole number, not {text!r}")
    return int(text)


def _providers(ort: ModuleType, args: dict[str, str]) -> list[Any]:
    providers: list[Any] = ["CPUExecutionProvider"]
    if args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}))
    return providers


def _check_names(what: str, wanted: list[str], found: list[str]) -> None:
    for name in wanted:
        if name not in found:
            raise pb_utils.TritonModelException(f"the ONNX file has no {what} {name}; it has {sorted(found)}")
