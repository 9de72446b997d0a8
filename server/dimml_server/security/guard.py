"""Access decision for every transport: who calls, whether the call is permitted, and whether there is room for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dimml.errors import ConfigurationError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from dimml_server.counts import Count, Counts, OwnCount
from dimml_server.security.keys import ApiKey, KeyRing, read_keys
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)

_BEARER: Final = "bearer "
#: Retry-After for a caller with too many requests in flight.
_RETRY_AFTER_S: Final = 1.0


class Guard:
    """API keys and their requests in flight. Lives in one event loop; without configured keys all calls are allowed.

    Raises ConfigurationError if the settings' keys cannot be read.
    """

    def __init__(self, settings: ServerSettings, counts: Counts = OwnCount) -> None:
        self._settings = settings
        self._counts = counts
        self._under_way: dict[str, Count] = {}
        self._keys = self._read()

    @property
    def closed(self) -> bool:
        """Whether calls need a key."""
        return len(self._keys) > 0

    def reload(self) -> None:
        """Read the keys file again. On failure the keys stay as they were, and the log says why."""
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            logger.error("keys stay as they were: %s", error.message)  # noqa: TRY400 - a person's mistake: no traceback
        else:
            logger.info("read %d API keys", len(self._keys))

    def identify(self, shown: str | None, *, admin: bool = False) -> ApiKey | None:
        """Identify the key of a call; return None if no keys are configured.

        Raises UnauthenticatedError, the same for a missing key as for a wrong one; PermissionDeniedError if ``admin``
        is required and the key is not an admin key.
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
        """Raise QueueFullError if a key has as many requests in flight as it may."""
        if key is not None and self._count(key).total >= self._limit(key):
            raise self._too_many(key)

    @contextmanager
    def place(self, key: ApiKey | None) -> Iterator[None]:
        """Count the block as a request in flight. Raises QueueFullError."""
        if key is None:
            yield
            return
        count = self._count(key)
        if not count.take(self._limit(key)):
            raise self._too_many(key)
        try:
            yield
        finally:
            count.give_back()
            if not count.own:
                self._under_way.pop(key.name, None)

    def _count(self, key: ApiKey) -> Count:
        count = self._under_way.get(key.name)
        if count is None:
            count = self._under_way[key.name] = self._counts(f"key {key.name}")
        return count

    def _limit(self, key: ApiKey) -> int:
        return self._settings.key_concurrency if key.concurrent is None else key.concurrent

    def _too_many(self, key: ApiKey) -> QueueFullError:
        return QueueFullError(
            f"{self._limit(key)} requests with this API key are under way; try again later",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _read(self) -> KeyRing:
        return read_keys(self._settings.api_keys_file, self._settings.api_keys)


def presented_key(api_key: str | None, authorization: str | None) -> str | None:
    """Read the key from ``X-API-Key`` or ``Authorization: Bearer``; the former counts if both are given.

    A proxy in front may need ``Authorization`` for itself.
    """
    if api_key is not None:
        return api_key
    if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return None
