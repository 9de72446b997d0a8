"""Triton's model repository calls over KServe v2, HTTP or gRPC, on any server that offers them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from dimml.errors import CapacityError, ConfigurationError, DimmlError, NotFoundError, RequestError, UnavailableError

READY = "READY"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model version of a server's repository; Triton gives no version and state of what was never loaded."""

    name: str
    version: str
    state: str
    reason: str


class ModelServer(Protocol):
    """A server's repository. Calls raise RequestError and CapacityError with the server's own words."""

    def server_name(self) -> str:
        """``dimml`` or ``triton``."""
        ...

    def index(self) -> list[Entry]:
        """All that the repository has."""
        ...

    def config(self, model: str) -> dict[str, Any]:
        """The configuration of a model that is loaded, as JSON."""
        ...

    def load(self, model: str, config: dict[str, Any] | None) -> None:
        """Load or reload a model, by another configuration than its own where one is given."""
        ...

    def unload(self, model: str) -> None:
        """Unload a model."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def model_server(url: str, *, timeout_s: float) -> ModelServer:
    """The server at ``http://…``, ``https://…`` or ``grpc://host:port``. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"url {url!r}: {error}", field="url") from error
    if parts.scheme in ("http", "https") and host:
        return _Http(url, timeout_s)
    if parts.scheme == "grpc" and host and port:
        return _Grpc(parts.netloc, timeout_s)
    raise ConfigurationError(
        f"url {url!r} is none of http://host:port, https://host:port, grpc://host:port", field="url"
    )


class _Http:
    def __init__(self, url: str, timeout_s: float) -> None:
        import httpx

        self._url = url
        self._http = httpx.Client(base_url=url, timeout=timeout_s)

    def server_name(self) -> str:
        return str(self._call("GET", "/v2")["name"])

    def index(self) -> list[Entry]:
        entries = self._call("POST", "/v2/repository/index", {})
        return [_entry(e.get("name"), e.get("version"), e.get("state"), e.get("reason")) for e in entries]

    def config(self, model: str) -> dict[str, Any]:
        return dict(self._call("GET", f"/v2/models/{quote(model)}/config"))

    def load(self, model: str, config: dict[str, Any] | None) -> None:
        body = {} if config is None else {"parameters": {"config": json.dumps(config)}}
        self._call("POST", f"/v2/repository/models/{quote(model)}/load", body)

    def unload(self, model: str) -> None:
        self._call("POST", f"/v2/repository/models/{quote(model)}/unload", {})

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        import httpx

        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise UnavailableError(f"no answer from {self._url}: {error or type(error).__name__}") from error
        try:
            document = answer.json() if answer.content else {}
        except ValueError:
            document = {}
        if answer.is_success:
            return document
        said = document.get("error") if isinstance(document, dict) else None
        message = _first_line(said) if isinstance(said, str) else f"{self._url}{path} answered {answer.status_code}"
        if answer.status_code == 404:
            raise NotFoundError(message)
        raise (RequestError if answer.status_code < 500 or answer.status_code == 501 else CapacityError)(message)


class _Grpc:
    def __init__(self, address: str, timeout_s: float) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self._address, self._timeout_s, self._pb = address, timeout_s, service_pb2
        options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def server_name(self) -> str:
        return str(self._call("ServerMetadata", self._pb.ServerMetadataRequest()).name)

    def index(self) -> list[Entry]:
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

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        try:
            return getattr(self._stub, method)(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            kinds: dict[grpc.StatusCode, type[DimmlError]] = {
                grpc.StatusCode.NOT_FOUND: NotFoundError,
                grpc.StatusCode.UNAVAILABLE: UnavailableError,
                grpc.StatusCode.INVALID_ARGUMENT: RequestError,
                grpc.StatusCode.UNIMPLEMENTED: RequestError,
            }
            said = _first_line(error.details() or error.code().name)
            raise kinds.get(error.code(), CapacityError)(f"grpc://{self._address}: {said}") from error


def _first_line(text: str) -> str:
    """Triton adds the lines of a Python model's traceback."""
    return text.strip().split("\n", 1)[0]


def _entry(name: str | None, version: str | None, state: str | None, reason: str | None) -> Entry:
    return Entry(name or "", version or "", state or "", reason or "")
