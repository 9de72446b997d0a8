"""Triton's model repository calls over KServe v2, by HTTP or gRPC, for any server that offers them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from dimml.errors import (
    CapacityError,
    ConfigurationError,
    DimmlError,
    NotFoundError,
    PermissionDeniedError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
)
from dimml_client.transport.address import ServerAddress, parse_address
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.tls_errors import closed_hint, untrusted

READY = "READY"
#: Name of a server that loads a bundle's models together, and reads only ``version_policy`` in a config.
DIMML = "dimml"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One model version in a server's repository; Triton gives no version and state if it was never loaded."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a bundle version in the requests that name no version."""

    percent: float
    shadow: bool
    #: Of its encoders; servers of before have FP32 alone.
    precision: str = "fp32"


class ModelServer(Protocol):
    """A server's repository. Calls raise RequestError and CapacityError with the server's own message."""

    def server_name(self) -> str:
        """``dimml`` or ``triton``."""
        ...

    def index(self) -> list[IndexEntry]:
        """List all models of the repository."""
        ...

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration of a loaded model, as JSON."""
        ...

    def load(self, model: str, config: dict[str, Any] | None) -> None:
        """Load or reload a model, with ``config`` instead of its own configuration if given."""
        ...

    def unload(self, model: str) -> None:
        """Unload a model."""
        ...

    def routing(self, bundle: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change a bundle's traffic split or shadow; return the new routing. Only dimml offers it, over HTTP."""
        ...

    def shares(self) -> dict[tuple[str, str], Share]:
        """Return shares by bundle and version; empty if the server, or the transport, does not report them."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def model_server(url: str, credentials: Credentials, *, timeout_s: float) -> ModelServer:
    """Connect to ``http://…``, ``https://…``, ``grpc://host:port`` or ``grpcs://…``. Raises ConfigurationError."""
    address = parse_address(url)
    return _Grpc(address, credentials, timeout_s) if address.grpc else _Http(url, credentials, timeout_s)


class _Http:
    def __init__(self, url: str, credentials: Credentials, timeout_s: float) -> None:
        import httpx

        self._url, self._secure = url, url.startswith("https:")
        verify = credentials.ssl_context() if self._secure else True
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=credentials.headers, verify=verify)

    def server_name(self) -> str:
        return str(self._call("GET", "/v2")["name"])

    def index(self) -> list[IndexEntry]:
        entries = self._call("POST", "/v2/repository/index", {})
        return [_entry(e.get("name"), e.get("version"), e.get("state"), e.get("reason")) for e in entries]

    def config(self, model: str) -> dict[str, Any]:
        return dict(self._call("GET", f"/v2/models/{quote(model)}/config"))

    def load(self, model: str, config: dict[str, Any] | None) -> None:
        body = {} if config is None else {"parameters": {"config": json.dumps(config)}}
        self._call("POST", f"/v2/repository/models/{quote(model)}/load", body)

    def unload(self, model: str) -> None:
        self._call("POST", f"/v2/repository/models/{quote(model)}/unload", {})

    def routing(self, bundle: str, change: dict[str, Any]) -> dict[str, Any]:
        self._check_dimml()
        return dict(self._call("PATCH", f"/v1/models/{quote(bundle, safe='')}/routing", change))

    def shares(self) -> dict[tuple[str, str], Share]:
        if self.server_name() != DIMML:
            return {}
        models = self._call("GET", "/v1/models")["models"]
        return {
            (m["name"], str(m["version"])): Share(m["share_percent"], m["shadow"], m.get("precision", "fp32"))
            for m in models
        }

    def close(self) -> None:
        self._http.close()

    def _check_dimml(self) -> None:
        if self.server_name() != DIMML:
            raise ConfigurationError(
                f"{self._url} is no `dimml serve`: splits, default versions and shadows are its own, "
                "also before a Triton server",
                field="url",
            )

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        import httpx

        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            why = untrusted(str(error)) or error or type(error).__name__
            hint = closed_hint(str(error), secure=self._secure)
            raise UnavailableError(f"no answer from {self._url}: {why}{hint}") from error
        try:
            document = answer.json() if answer.content else {}
        except ValueError:
            document = {}
        if answer.is_success:
            return document
        said = document.get("error") if isinstance(document, dict) else None
        if isinstance(said, dict):  # An object as on /v1; on /v2 it is a text.
            said = said.get("message")
        message = _first_line(said) if isinstance(said, str) else f"{self._url}{path} answered {answer.status_code}"
        kinds = {401: UnauthenticatedError, 403: PermissionDeniedError, 404: NotFoundError}
        if answer.status_code in kinds:
            raise kinds[answer.status_code](message)
        raise (RequestError if answer.status_code < 500 or answer.status_code == 501 else CapacityError)(message)


class _Grpc:
    def __init__(self, address: ServerAddress, credentials: Credentials, timeout_s: float) -> None:
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self._url, self._secure, self._timeout_s, self._pb = address.url, address.secure, timeout_s, service_pb2
        self._metadata = credentials.metadata
        self._channel = credentials.channel(address.authority, secure=address.secure)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def server_name(self) -> str:
        return str(self._call("ServerMetadata", self._pb.ServerMetadataRequest()).name)

    def index(self) -> list[IndexEntry]:
        models = self._call("RepositoryIndex", self._pb.RepositoryIndexRequest()).models
        return [_entry(m.name, m.version, m.state, m.reason) for m in models]

    def config(self, model: str) -> dict[str, Any]:
        from google.protobuf import json_format

        config = self._call("ModelConfig", self._pb.ModelConfigRequest(name=model)).config
        return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))

    def load(self, model: str, config: dict[str, Any] | None) -> None:
        request = self._pb.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = json.dumps(config)
        self._call("RepositoryModelLoad", request)

    def unload(self, model: str) -> None:
        self._call("RepositoryModelUnload", self._pb.RepositoryModelUnloadRequest(model_name=model))

    def routing(self, bundle: str, change: dict[str, Any]) -> dict[str, Any]:
        raise ConfigurationError(
            "splits, default versions and shadows can be set over HTTP only: give --url http://host:port", field="url"
        )

    def shares(self) -> dict[tuple[str, str], Share]:
        return {}

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        try:
            return getattr(self._stub, method)(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            kinds: dict[grpc.StatusCode, type[DimmlError]] = {
                grpc.StatusCode.NOT_FOUND: NotFoundError,
                grpc.StatusCode.UNAVAILABLE: UnavailableError,
                grpc.StatusCode.INVALID_ARGUMENT: RequestError,
                grpc.StatusCode.UNIMPLEMENTED: RequestError,
                grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
                grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
            }
            text = error.details() or error.code().name
            said = untrusted(text) or _first_line(text)
            raise kinds.get(error.code(), CapacityError)(
                f"{self._url}: {said}{closed_hint(text, secure=self._secure)}"
            ) from error


def _first_line(text: str) -> str:
    """Return the first line; Triton appends the lines of a Python model's traceback."""
    return text.strip().split("\n", 1)[0]


def _entry(name: str | None, version: str | None, state: str | None, reason: str | None) -> IndexEntry:
    return IndexEntry(name or "", version or "", state or "", reason or "")
