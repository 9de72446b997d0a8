"""Loading, rolling back and unloading whole bundles on a server that only knows single models, as Triton does.

The entry model calls its encoders by its own version. So all parts of a version are loaded beside the served ones
before the old ones are unloaded. Whatever fails on the way, the old version stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dimml.errors import CapacityError, ConfigurationError, DimmlError, NotFoundError, RequestError
from dimml.repository import bundle_versions
from dimml_client.models.repository_client import DIMML, READY, IndexEntry, ModelServer

_FUSION, _MEDIA = "_fusion", "_media"


@dataclass(frozen=True, slots=True)
class BundleParts:
    """Models of one bundle on one server, in loading order: each after the models it calls."""

    encoders: tuple[str, ...]
    fusion: str
    #: None if the model is not used, or the server does not have it.
    entry: str | None
    media: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models in loading order."""
        return (*self.encoders, self.fusion, *(name for name in (self.entry, self.media) if name))


def parts_of(index: Sequence[IndexEntry]) -> dict[str, BundleParts]:
    """Find the bundles in a server's index by name: those with a fusion model and at least one encoder."""
    names = {entry.name for entry in index}
    bundles = sorted(name.removesuffix(_FUSION) for name in names if name.endswith(_FUSION))
    found = {}
    for name in bundles:
        longer = [other for other in bundles if other != name and other.startswith(f"{name}_")]
        own = {n for n in names if n.startswith(f"{name}_") and not any(_belongs(n, other) for other in longer)}
        encoders = tuple(sorted(own - {name + _FUSION, name + _MEDIA}))
        if encoders:
            found[name] = BundleParts(
                encoders,
                fusion=name + _FUSION,
                entry=name if name in names else None,
                media=name + _MEDIA if name + _MEDIA in own else None,
            )
    return found


class BundleLoader:
    """Loads bundles on one server. ``repository`` is the server's model repository, if this machine can read it.

    Triton needs it for models that are not loaded: only a configuration can name a version, and a server returns only
    those of loaded models.
    """

    def __init__(self, server: ModelServer, repository: Path | None = None) -> None:
        self._server = server
        self._repository = repository
        self._partial = server.server_name() == DIMML

    def load(self, bundle: str, versions: Sequence[int] = ()) -> tuple[int, ...]:
        """Serve these versions of a bundle, by default the newest, and no others; return what is served now.

        Raises NotFoundError, RequestError and CapacityError with the server's reason, after restoring the previous
        state; ConfigurationError if the newest version, or a configuration, cannot be found out from here.
        """
        index = self._server.index()
        parts = _in_use(self._parts(index, bundle), index)
        before = {name: _ready_versions(index, name) for name in parts.names}
        wanted = tuple(sorted(set(versions))) or self._newest(index, bundle)
        touched: list[str] = []
        try:
            for name in parts.names:
                beside = sorted({*before[name], *wanted})
                if beside != before[name]:
                    touched.append(name)
                    self._load(name, beside)
            self._check(parts, wanted)
        except (RequestError, CapacityError):
            for name in reversed(touched):
                self._put_back(name, before[name])
            raise
        for name in reversed(parts.names):
            if set(before[name]) - set(wanted):
                self._load(name, wanted)
        return wanted

    def unload(self, bundle: str) -> None:
        """Unload every model of a bundle, the entry, which calls the others, first.

        Raises NotFoundError, and RequestError and CapacityError with the server's reason.
        """
        parts = self._parts(self._server.index(), bundle)
        for name in dict.fromkeys((parts.entry, parts.media, parts.fusion, *parts.encoders)):
            if name is not None:
                self._server.unload(name)

    def _parts(self, index: Sequence[IndexEntry], bundle: str) -> BundleParts:
        known = parts_of(index)
        if bundle not in known:
            listed = ", ".join(known) or "none"
            raise NotFoundError(f"the server's repository has no bundle {bundle!r}; it has: {listed}")
        return known[bundle]

    def _newest(self, index: Sequence[IndexEntry], bundle: str) -> tuple[int, ...]:
        if self._repository is not None:
            known = bundle_versions(self._repository, bundle)
        else:
            # Triton lists versions that it has or had loaded, dimml lists all.
            known = [int(e.version) for e in index if e.name == bundle and e.version] if self._partial else []
        if not known:
            where = (
                f"{self._repository} has no bundle {bundle!r}"
                if self._repository
                else ("which version is the newest cannot be asked of this server")
            )
            raise ConfigurationError(f"{where}; give --version, or the server's repository as --repository")
        return (max(known),)

    def _load(self, model: str, versions: Iterable[int]) -> None:
        config: dict[str, Any] = {} if self._partial else self._config(model)
        config["version_policy"] = {"specific": {"versions": list(versions)}}
        self._server.load(model, config)

    def _config(self, model: str) -> dict[str, Any]:
        """Return the whole configuration, since on Triton a given one replaces the model's own."""
        if self._repository is None:
            try:
                return self._server.config(model)
            except (RequestError, CapacityError) as error:
                raise ConfigurationError(
                    f"{model} is not loaded, so the server does not return its configuration; "
                    "give the server's repository as --repository"
                ) from error
        from google.protobuf import json_format, text_format
        from tritonclient.grpc import model_config_pb2

        path = self._repository / model / "config.pbtxt"
        try:
            config = text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())
        except (OSError, text_format.ParseError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
        return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))

    def _check(self, parts: BundleParts, wanted: Sequence[int]) -> None:
        """Check that a server that answered "loaded" has loaded every part. Raises RequestError."""
        index = self._server.index()
        for name in parts.names:
            missing = set(wanted) - set(_ready_versions(index, name))
            if missing:
                raise RequestError(f"{name} has no version {min(missing)} on the server, although it said so")

    def _put_back(self, model: str, versions: Sequence[int]) -> None:
        try:
            if versions:
                self._load(model, versions)
            elif not self._partial:
                self._server.unload(model)
        except DimmlError:
            # The first error is the one to report; a server that is gone has nothing to restore.
            return


def _in_use(parts: BundleParts, index: Sequence[IndexEntry]) -> BundleParts:
    """Drop entry and media if the other models are served without them, as behind a gateway."""
    ready = {entry.name for entry in index if entry.state == READY}
    if ready.intersection(parts.encoders) and parts.entry not in ready and parts.media not in ready:
        return replace(parts, entry=None, media=None)
    return parts


def _ready_versions(index: Sequence[IndexEntry], model: str) -> list[int]:
    return sorted(int(e.version) for e in index if e.name == model and e.state == READY)


def _belongs(name: str, bundle: str) -> bool:
    return name == bundle or name.startswith(f"{bundle}_")
