"""The one decision for every transport: whose call this is, whether it may be made, and whether now."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dimml.errors import ConfigurationError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from dimml_server.security.keys import ApiKey, KeyRing, read_keys
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)

_BEARER: Final = "bearer "
#: How long one that has too many requests under way is told to wait.
_RETRY_AFTER_S: Final = 1.0


class Guard:
    """Keys and their requests under way. Lives in one event loop; without configured keys it lets everybody in.

    Raises ConfigurationError where the settings' keys cannot be read.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._under_way: Counter[str] = Counter()
        self._keys = self._read()

    @property
    def closed(self) -> bool:
        """Whether calls need a key."""
        return len(self._keys) > 0

    def reload(self) -> None:
        """Read the keys file again. Where that fails, the keys stay as they were and the log says why."""
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            logger.error("keys stay as they were: %s", error.message)  # noqa: TRY400 - a person's mistake, no traceback
        else:
            logger.info("read %d API keys", len(self._keys))

    def identify(self, shown: str | None, *, admin: bool = False) -> ApiKey | None:
        """The key of a call; None where no keys are configured.

        Raises UnauthenticatedError, the same for no key as for a wrong one; PermissionDeniedError where ``admin`` is
        needed and the key's is not one.
        """
        if not self.closed:
            return None
        key = self._keys.find(shown or "")
        if key is None:
            raise UnauthenticatedError("this server wants a valid API key")
        if admin and not key.admin:
            raise PermissionDeniedError("this call needs an admin key")
        return key

    def check_place(self, key: ApiKey | None) -> None:
        """Raise QueueFullError where a key has as many requests under way as it may."""
        if key is None:
            return
        limit = self._settings.key_concurrency if key.concurrent is None else key.concurrent
        if self._under_way[key.name] >= limit:
            raise QueueFullError(
                f"{limit} requests with this API key are under way; try again later", retry_after_s=_RETRY_AFTER_S
            )

    @contextmanager
    def place(self, key: ApiKey | None) -> Iterator[None]:
        """Count the block as a request under way. Raises QueueFullError."""
        if key is None:
            yield
            return
        self.check_place(key)
        self._under_way[key.name] += 1
        try:
            yield
        finally:
            self._under_way[key.name] -= 1
            if not self._under_way[key.name]:
                del self._under_way[key.name]

    def _read(self) -> KeyRing:
        return read_keys(self._settings.api_keys_file, self._settings.api_keys)


def shown_key(api_key: str | None, authorization: str | None) -> str | None:
    """The key out of ``X-API-Key`` and ``Authorization: Bearer``; the former counts where both are there.

    A proxy in front may need ``Authorization`` for itself.
    """
    if api_key is not None:
        return api_key
    if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return None
