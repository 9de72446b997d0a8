"""One gRPC call at a time, blocking or in an event loop, through tritonclient's own stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from tritonclient.grpc import service_pb2_grpc

from dimml.errors import UnavailableError
from dimml_client.transport.address import ServerAddress
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.request import read_part


class GrpcChannel(Protocol):
    """Calls to one server."""

    async def call(self, method: str, message: Any, timeout_s: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """Call a method of ``GRPCInferenceService``. Raises grpc.RpcError, and UnavailableError if closed meanwhile."""
        ...

    async def read(self, name: str, source: Path | bytes) -> bytes:
        """Read all bytes of a part. Raises InvalidParameterError naming the part."""
        ...

    async def close(self) -> None:
        """Close the channel."""
        ...


class BlockingChannel:
    """``GrpcChannel`` that never suspends."""

    def __init__(self, address: ServerAddress, credentials: Credentials) -> None:
        self._channel = credentials.channel(address.authority, secure=address.secure)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def call(self, method: str, message: Any, timeout_s: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """Call and wait."""
        return getattr(self._stub, method)(message, timeout=timeout_s, metadata=metadata)

    async def read(self, name: str, source: Path | bytes) -> bytes:
        """Read here and now."""
        return read_part(name, source)

    async def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncChannel:
    """``GrpcChannel`` in the event loop of the first call. Cancelling an awaiting task cancels its call."""

    def __init__(self, address: ServerAddress, credentials: Credentials) -> None:
        # A channel belongs to the loop that runs when it is opened; here there may be none yet.
        self._open = credentials.channel_opener(address.authority, secure=address.secure)
        self._url = address.url
        self._closed = False
        self._channel: Any = None
        self._stub: Any = None

    async def call(self, method: str, message: Any, timeout_s: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """Call and await the answer."""
        if self._stub is None:
            self._channel = self._open(grpc.aio)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        try:
            return await getattr(self._stub, method)(message, timeout=timeout_s, metadata=metadata)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                # gRPC raises this where the channel was closed, too; the task was not cancelled.
                raise UnavailableError(f"the client of {self._url} was closed during the call") from None
            raise

    async def read(self, name: str, source: Path | bytes) -> bytes:
        """Read in a thread: a slow disk must not hold up the event loop."""
        return source if isinstance(source, bytes) else await asyncio.to_thread(read_part, name, source)

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()
