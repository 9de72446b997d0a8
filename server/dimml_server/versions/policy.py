"""Which versions of a bundle are to be served at a time: Triton's ``version_policy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dimml.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """``specific`` versions, or the ``latest`` so many; all of them where neither is given."""

    latest: int | None = None
    specific: tuple[int, ...] = ()

    def chosen(self, name: str, available: Sequence[int]) -> list[int]:
        """Those of the ``available`` versions (ascending) that are to be served. Raises NotFoundError."""
        for version in self.specific:
            if version not in available:
                raise NotFoundError(
                    f"model '{name}' has no version {version} in the repository; it has {list(available)}",
                    field="version_policy",
                )
        if self.specific:
            return sorted(set(self.specific))
        return list(available) if self.latest is None else list(available[-self.latest :])


#: What counts where neither a call nor ``config.pbtxt`` says anything, as on Triton.
NEWEST = VersionPolicy(latest=1)
