"""API keys over gRPC: callers without a valid key, or without permission, are refused before the message is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from dimml.errors import DimmlError
from dimml_server.kserve.grpc.access import kind_of
from dimml_server.observability.request_context import current_request
from dimml_server.security.guard import Guard, presented_key
from dimml_server.security.keys import ApiKey
from dimml_server.settings.settings import ServerSettings

_SERVICE: Final = "/inference.GRPCInferenceService/"
_HEALTH: Final = frozenset({f"{_SERVICE}ServerLive", f"{_SERVICE}ServerReady", "/grpc.health.v1.Health/Check"})
_ADMIN: Final = frozenset({f"{_SERVICE}RepositoryModelLoad", f"{_SERVICE}RepositoryModelUnload"})

#: Ends a call with an error's status; never returns.
Abort = Callable[[Any, DimmlError], Awaitable[Any]]


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Checks the metadata ``x-api-key`` or ``authorization`` of every call."""

    def __init__(self, guard: Guard, settings: ServerSettings, abort: Abort) -> None:
        self._guard = guard
        self._abort = abort
        self._open = _HEALTH if settings.health_open else frozenset()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the call's handler, or one that refuses the call."""
        if not self._guard.closed or details.method in self._open:
            return await continuation(details)
        key = None
        try:
            key = self._guard.identify(key_of(details.invocation_metadata), admin=details.method in _ADMIN)
            self._guard.check_place(key)
        except DimmlError as error:
            return self._refusing(error, key)
        handler = await continuation(details)
        return handler if handler is None else self._counted(handler, key)

    def _refusing(self, error: DimmlError, key: ApiKey | None) -> Any:
        async def refuse(messages: Any, context: Any) -> None:
            _note_key(key)
            await self._abort(context, error)

        # On the wire any call can be answered as a stream. A stream handler reads no message unless it asks for one,
        # while gRPC reads a unary message completely, up to max_body_bytes, before calling its handler.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _counted(self, handler: Any, key: ApiKey | None) -> Any:
        method = handler.unary_unary
        if method is None:
            return self._noted(handler, key)

        async def counted(request: Any, context: Any) -> Any:
            _note_key(key)
            try:
                with self._guard.place(key):
                    return await method(request, context)
            except DimmlError as error:
                return await self._abort(context, error)

        return grpc.unary_unary_rpc_method_handler(counted, handler.request_deserializer, handler.response_serializer)

    def _noted(self, handler: Any, key: ApiKey | None) -> Any:
        """Streams are bounded by themselves: ModelStreamInfer refuses at once, the others have a bound of their own."""
        method = handler.unary_stream or handler.stream_stream

        async def noted(request: Any, context: Any) -> Any:
            _note_key(key)
            return await method(request, context)

        return kind_of(handler)(noted, handler.request_deserializer, handler.response_serializer)


def _note_key(key: ApiKey | None) -> None:
    if key is not None and (request_context := current_request()) is not None:
        request_context.key = key.name


def key_of(metadata: Any) -> str | None:
    """Return the API key in a call's metadata, or None."""
    values: Mapping[str, Any] = dict(metadata or ())
    api_key, authorization = values.get("x-api-key"), values.get("authorization")
    return presented_key(
        api_key if isinstance(api_key, str) else None, authorization if isinstance(authorization, str) else None
    )
