"""Triton's model repository extension for both transports: index, load, unload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from dimml.errors import RequestError, UnsupportedError
from dimml_server.kserve.messages import check_text
from dimml_server.prediction.whole_server import WholeServer
from dimml_server.versions.control import READY, ModelControl
from dimml_server.versions.model_config import parse_config_json, version_policy_of

#: The refusal while loading and unloading is off, the default.
NOT_ALLOWED: Final = (
    "explicit model load / unload is not allowed: start the server with model_control=explicit "
    "(--set model_control=explicit, or DIMML_MODEL_CONTROL=explicit)"
)


class RepositoryCalls:
    """The repository calls; ``explicit``: whether callers may change what is served."""

    def __init__(self, control: ModelControl, whole: WholeServer, *, explicit: bool) -> None:
        self.explicit = explicit
        self._control, self._whole = control, whole

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """List the entries of ``RepositoryIndexResponse``: the whole repository, or only what is ready.

        Raises UnavailableError if only what is ready is requested while bundles are still loading.
        """
        if ready:
            self._control.check_loaded()
        entries = await asyncio.to_thread(self._control.index)
        return [entry for entry in entries if entry["state"] == READY or not ready]

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Load a model. Of ``config`` in ``parameters``, only ``version_policy`` is used. Raises RequestError."""
        self._check_allowed(model)
        for name in parameters:
            if name.startswith("file:"):
                raise UnsupportedError("files are not taken from a load request: bundles come from the repository")
            if name != "config":
                raise RequestError(f"unrecognized load parameter '{name[:100]}'")
        config = parameters.get("config")
        if config is None:
            await self._whole.load(model)
        elif isinstance(config, str):
            await self._whole.load(model, version_policy_of(parse_config_json(config, model)))
        else:
            raise RequestError("load parameter 'config' must be a JSON text")

    async def unload(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Unload a model. ``unload_dependents`` has no effect: a bundle is unloaded whole. Raises RequestError."""
        self._check_allowed(model)
        for name, value in parameters.items():
            if name != "unload_dependents" or not isinstance(value, bool):
                raise RequestError(f"unrecognized unload parameter '{name[:100]}'")
        await self._whole.unload(model)

    def _check_allowed(self, model: str) -> None:
        check_text("model_name", model)
        if not self.explicit:
            raise UnsupportedError(NOT_ALLOWED)
