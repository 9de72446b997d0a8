"""Watch of the repository every few seconds: new versions are loaded, removed ones are unloaded.

It polls, since this machine is not notified of changes that another one makes on a network file system.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Protocol

from dimml.errors import BundleError, DimmlError
from dimml.repository import bundle_names, bundle_versions

logger = logging.getLogger(__name__)

#: Fingerprint of a bundle version; for every file: path, size, modification time in nanoseconds, and inode.
Print = tuple[tuple[str, int, int, int], ...]
Seen = dict[tuple[str, int], Print]


class WatchedControl(Protocol):
    """What a watch asks of model control: ``ModelControl``, or that of several processes."""

    async def load(self, model: str) -> None:
        """Serve the versions that the bundle's policy chooses. Raises DimmlError."""
        ...

    async def drop(self, name: str, version: int) -> None:
        """Stop serving a version that was removed from the repository. Raises DimmlError."""
        ...

    def serves(self, name: str, version: int) -> bool:
        """Whether a bundle version takes requests."""
        ...


class RepositoryWatch:
    """Watches bundles of one repository, all of them if ``names`` is empty. Lives in one event loop.

    A change counts once two checks in a row have seen the same state, so that a copy in progress is left alone.
    """

    def __init__(self, control: WatchedControl, repository: Path, names: Sequence[str], interval_s: float) -> None:
        self._control = control
        self._repository = repository
        self._names = frozenset(names)
        self._interval_s = interval_s
        self._unreadable = False
        #: State of every version when it was last handled, and at the last check.
        self._dealt: Seen = {}
        self._last: Seen = {}
        self._missing: set[tuple[str, int]] = set()

    async def begin(self) -> None:
        """Record the current state, which the server's start handles."""
        self._dealt = await self._look() or {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            seen = await self._look()
            if seen is not None:
                await self._deal(seen)

    async def _look(self) -> Seen | None:
        """Return the current state; None if unknown. A repository without any bundle counts as an unmounted disk."""
        try:
            seen = await asyncio.to_thread(self._prints)
        except (OSError, BundleError) as error:
            why = error.message if isinstance(error, BundleError) else str(error)
        else:
            if seen:
                if self._unreadable:
                    logger.info("the repository can be read again")
                self._unreadable = False
                return seen
            why = "it holds no bundle"
        if not self._unreadable:
            logger.warning("watch: repository %s cannot be used, all stays as it is: %s", self._repository, why)
        self._unreadable = True
        return None

    async def _deal(self, seen: Seen) -> None:
        settled = {key for key, files in seen.items() if self._last.get(key) == files}
        changed = {key for key in settled if self._dealt.get(key) != seen[key]}
        gone = self._missing - seen.keys()
        self._missing = self._dealt.keys() - seen.keys() - gone
        self._last = seen
        for name, version in sorted(gone):
            del self._dealt[name, version]
            await self._guarded(f"version {version} of {name} has gone", self._control.drop(name, version))
        to_load: dict[str, list[int]] = {}
        for name, version in sorted(changed):
            known = (name, version) in self._dealt
            self._dealt[name, version] = seen[name, version]
            if not self._control.serves(name, version):
                to_load.setdefault(name, []).append(version)
            elif known:
                logger.warning(
                    "watch: files of version %d of %s have changed, which is served and goes on as it was loaded; "
                    "export a new version",
                    version,
                    name,
                )
        for name, versions in to_load.items():
            found = ", ".join(map(str, versions))
            await self._guarded(f"{name} has new files of version {found}", self._control.load(name))

    async def _guarded(self, what: str, action: Coroutine[None, None, None]) -> None:
        logger.info("watch: %s", what)
        try:
            await action
        except DimmlError as error:
            # Tried again when its files change. A fault of a bundle has already been counted and logged where it was
            # found.
            if not isinstance(error.__cause__, BundleError):
                logger.warning("watch: %s", error.message)
        except Exception:
            logger.exception("watch: %s", what)

    def _prints(self) -> Seen:
        names = [name for name in bundle_names(self._repository) if not self._names or name in self._names]
        folders = [entry.name for entry in self._repository.iterdir()]
        seen: Seen = {}
        for name in names:
            parts = [folder for folder in folders if folder == name or folder.startswith(f"{name}_")]
            for version in bundle_versions(self._repository, name):
                files = [path for part in parts for path in (self._repository / part / str(version)).glob("*")]
                # Files only: Python leaves its cache folder beside the entry models.
                stats = [(path, path.stat()) for path in sorted(files) if path.is_file()]
                seen[name, version] = tuple((str(p), s.st_size, s.st_mtime_ns, s.st_ino) for p, s in stats)
        return seen
