"""The four faces of tritonclient, each as a plain blocking client, and tensors for the tiny bundle."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from google.protobuf import json_format
from google.protobuf.message import Message
from tritonclient.utils import np_to_triton_dtype

from support.tiny_bundle import AUDIO, VISUAL, tiny_row

FACES = ("http", "http.aio", "grpc", "grpc.aio")
#: One of each: what a server answers depends on no more.
TRANSPORTS = ("http", "grpc")


class _Blocking:
    """An asyncio client, called from outside of its loop."""

    def __init__(self, client: Any, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            async def answer() -> Any:
                result = method(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return self._runner.run(answer())

        return call


@dataclass
class Face:
    """One kind of tritonclient: its client, and the module of its tensor classes."""

    name: str
    client: Any
    module: ModuleType

    @property
    def http(self) -> bool:
        """Whether it speaks HTTP."""
        return self.name.startswith("http")

    def tensor(self, name: str, array: npt.NDArray[Any], *, binary: bool = True, datatype: str | None = None) -> Any:
        """An input; ``binary`` counts for HTTP alone."""
        tensor = self.module.InferInput(name, array.shape, datatype or np_to_triton_dtype(array.dtype))
        if self.http:
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        return tensor

    def output(self, name: str, *, binary: bool = True, class_count: int = 0) -> Any:
        """A requested output."""
        if self.http:
            return self.module.InferRequestedOutput(name, binary_data=binary, class_count=class_count)
        return self.module.InferRequestedOutput(name, class_count=class_count)

    def waveform(self, labels: Sequence[int], **kwargs: Any) -> Any:
        """WAVEFORM with a row that sounds like each label."""
        return self.tensor("WAVEFORM", waveform(labels), **kwargs)

    def frames(self, labels: Sequence[int], **kwargs: Any) -> Any:
        """FRAMES with a row that looks like each label."""
        return self.tensor("FRAMES", frames(labels), **kwargs)

    def infer(self, model: str, inputs: Sequence[Any], **kwargs: Any) -> Any:
        """``client.infer``."""
        return self.client.infer(model, list(inputs), **kwargs)


def waveform(labels: Sequence[int]) -> npt.NDArray[np.float32]:
    """``[B, samples]``; label -1 is silence."""
    rows = [np.zeros(AUDIO.shape, np.float32) if label < 0 else tiny_row(AUDIO, label) for label in labels]
    return np.stack(rows)


def frames(labels: Sequence[int]) -> npt.NDArray[np.uint8]:
    """``[B, T, H, W, 3]``; label -1 is black."""
    rows = [np.zeros(VISUAL.shape, np.uint8) if label < 0 else tiny_row(VISUAL, label) for label in labels]
    return np.stack(rows)


@contextmanager
def face(name: str, http: str, grpc: str) -> Iterator[Face]:
    """A client of this kind; ``http`` and ``grpc`` are ``host:port``."""
    if name == "http":
        with tritonclient.http.InferenceServerClient(http) as client:
            yield Face(name, client, tritonclient.http)
    elif name == "grpc":
        with tritonclient.grpc.InferenceServerClient(grpc) as client:
            yield Face(name, client, tritonclient.grpc)
    else:
        module = tritonclient.http.aio if name == "http.aio" else tritonclient.grpc.aio
        url = http if name == "http.aio" else grpc
        with asyncio.Runner() as runner:

            async def connect() -> Any:
                return module.InferenceServerClient(url)

            client = runner.run(connect())
            try:
                yield Face(name, _Blocking(client, runner), module)
            finally:
                runner.run(client.close())


def as_dict(answer: Any) -> Any:
    """A client's answer as plain Python, 64-bit numbers as numbers, whatever its transport."""
    if isinstance(answer, Message):
        answer = json_format.MessageToDict(answer, preserving_proto_field_name=True)
    return _with_numbers(answer)


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        # Versions are texts in the protocol; every other text of digits is a 64-bit number.
        return {k: v if k in ("version", "versions") else _with_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
