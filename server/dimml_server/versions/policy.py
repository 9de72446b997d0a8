"""Policy of which versions of a bundle are served at the same time: Triton's ``version_policy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dimml.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Either ``specific`` versions, or the ``latest`` so many; all of them if neither is given."""

    latest: int | None = None
    specific: tuple[int, ...] = ()

    def chosen(self, name: str, available: Sequence[int]) -> list[int]:
        """Choose from the ``available`` versions (ascending) those to serve. Raises NotFoundError."""
        for version in self.specific:
            if version not in available:
                raise NotFoundError(
                    f"model '{name}' has no version {version} in the repository; it has {list(available)}",
                    field="version_policy",
                )
        if self.specific:
            return sorted(set(self.specific))
        return list(available) if self.latest is None else list(available[-self.latest :])


#: Default if neither a call nor ``config.pbtxt`` gives a policy, as on Triton.
NEWEST = VersionPolicy(latest=1)
