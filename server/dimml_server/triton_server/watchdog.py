"""Watchdog that reloads models whose process died: Triton does not restart a dead stub, and still reports it ready.

Only models whose instances are processes (Python, and backends in Python) can lose one. A model is reloaded if it is
``READY`` in Triton's index and has fewer living processes than instances, twice in a row.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

from dimml_server.triton_server.process import stub_processes

POLL_S: Final = 0.5
_CALL_LIMIT_S: Final = 5.0
#: Long, since unloading waits for requests in flight, and loading for the model.
_RELOAD_LIMIT_S: Final = 120.0

Version = tuple[str, str]


class Watchdog:
    """Checks a server's processes whenever ``look`` is called; ``backends`` run their models in processes."""

    def __init__(self, pid: int, http: str, backends: frozenset[str], say: Callable[[str], None]) -> None:
        self._pid = pid
        self._url = f"http://{http}"
        self._backends = backends
        self._say = say
        self._instances: dict[Version, int] = {}
        self._suspects: set[Version] = set()

    def look(self) -> list[str]:
        """Reload models found dead for the second time; return their names."""
        try:
            ready = self._ready()
            alive = self._alive()
            self._instances = {version: n for version, n in self._instances.items() if version in ready}
            dead = {version for version in ready if self._lacks(version, alive[version])}
        except (OSError, ValueError):
            # Triton is too busy to answer, or stopping.
            return []
        mended = sorted({version[0] for version in dead & self._suspects})
        for model in mended:
            self._reload(model, sorted(int(version) for name, version in ready if name == model))
        self._suspects = {version for version in dead if version[0] not in mended}
        return mended

    def _lacks(self, version: Version, alive: int) -> bool:
        """Whether a ready version has fewer processes than instances; during a reload it has more."""
        if alive < self._instances.get(version, alive + 1):
            # Queried again: it may have been loaded with another configuration in the meantime.
            self._instances[version] = self._instances_of(version)
        return alive < self._instances[version]

    def _instances_of(self, version: Version) -> int:
        config = self._call(f"/v2/models/{version[0]}/versions/{version[1]}/config", None, _CALL_LIMIT_S)
        if config.get("backend") not in self._backends:
            return 0
        return sum(int(group.get("count", 1)) for group in config.get("instance_group", []))

    def _alive(self) -> Counter[Version]:
        found: Counter[Version] = Counter()
        for words in stub_processes(self._pid).values():
            # …/triton_python_backend_stub <repository>/<model>/<version>/model.py …
            if len(words) > 1 and len(parts := PurePath(words[1]).parts) >= 3:
                found[parts[-3], parts[-2]] += 1
        return found

    def _ready(self) -> set[Version]:
        index = self._call("/v2/repository/index", {"ready": True}, _CALL_LIMIT_S)
        return {(entry["name"], entry["version"]) for entry in index if entry.get("state") == "READY"}

    def _reload(self, model: str, versions: list[int]) -> None:
        self._say(f"watchdog: a process of {model} died; loading it again")
        try:
            # Exactly the versions served: a client may have chosen others than config.pbtxt does. Triton returns the
            # policy of the load that made the instances, which a later load may have narrowed (seen).
            config = self._call(f"/v2/models/{model}/config", None, _CALL_LIMIT_S)
            config["version_policy"] = {"specific": {"versions": versions}}
            self._call(f"/v2/repository/models/{model}/unload", {}, _RELOAD_LIMIT_S)
            given = {"parameters": {"config": json.dumps(config)}}
            self._call(f"/v2/repository/models/{model}/load", given, _RELOAD_LIMIT_S)
        except (OSError, ValueError) as error:
            self._say(f"watchdog: {model} does not load again: {_reason(error)}")
        else:
            self._say(f"watchdog: {model} is loaded again")

    def _call(self, path: str, body: dict[str, Any] | None, limit_s: float) -> Any:
        """POST ``body``, or GET without one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # http://, and our own server
            self._url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=limit_s) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        try:
            return str(json.loads(error.read())["error"]).split("\n", 1)[0]
        except (OSError, ValueError, KeyError):
            return f"HTTP {error.code}"
    return str(error)
