"""Traffic split of a bundle: the version that answers a request naming none, and the shadow version."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from dimml.bundle import Bundle
from dimml.errors import InvalidParameterError

WHOLE_PERCENT: Final = 100.0
_TOLERANCE_PERCENT: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Route:
    """The bundle version that answers one request."""

    bundle: Bundle
    #: Whether the server chose the version; requests that name one are not copied to a shadow.
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """Routing of one bundle: percent of the requests by version, 100 in total, and the shadow.

    Without a split, the newest loaded version gets all requests.
    """

    split: Mapping[int, float] = field(default_factory=dict)
    shadow: int | None = None

    @property
    def versions(self) -> set[int]:
        """Versions that must stay loaded."""
        return {*self.split, *(() if self.shadow is None else (self.shadow,))}

    def default(self, served: Collection[int]) -> int:
        """Return the version with the largest share, the newest among equals: used if only one can be meant."""
        return max(self.split or served, key=lambda version: (self.split.get(version, 0.0), version))

    def choose(self, served: Collection[int], bundle: str, key: str | None) -> int:
        """Choose the version for a request: the same one for the same key, a random one without a key."""
        if len(self.split) < 2:
            return self.default(served)
        place = random.random() if key is None else _place(bundle, key)  # noqa: S311 - a share, not a secret
        # Newest first, so that as its share grows, no key moves away from it.
        for version in sorted(self.split, reverse=True):
            place -= self.split[version] / WHOLE_PERCENT
            if place < 0.0:
                return version
        return min(self.split)

    def without(self, version: int) -> Routing:
        """Return the routing without a version: its share goes to the others in proportion, or to the newest."""
        left = {other: share for other, share in self.split.items() if other != version}
        total = sum(left.values())
        split = {other: WHOLE_PERCENT * share / total for other, share in left.items()}
        return Routing(split, None if self.shadow == version else self.shadow)

    def check(self, bundle: str, served: Collection[int]) -> None:
        """Raise InvalidParameterError if the served versions do not allow this routing."""
        for share in self.split.values():
            if not (math.isfinite(share) and 0.0 < share <= WHOLE_PERCENT):
                raise InvalidParameterError(
                    f"split: a share is above 0 and at most 100 percent, got {share:g}; leave out who gets none",
                    field="split",
                )
        if self.split and abs(sum(self.split.values()) - WHOLE_PERCENT) > _TOLERANCE_PERCENT:
            raise InvalidParameterError(
                f"split: the shares must add up to 100 percent, these make {sum(self.split.values()):g}", field="split"
            )
        for name, versions in (("split", self.split), ("shadow", [] if self.shadow is None else [self.shadow])):
            for version in versions:
                if version not in served:
                    raise InvalidParameterError(
                        f"{name}: version {version} of {bundle!r} is not loaded; loaded are {sorted(served)}. "
                        "Load it beside them first",
                        field=name,
                    )
        if self.shadow is not None and self.shadow in (self.split or {self.default(served)}):
            raise InvalidParameterError(
                f"shadow: version {self.shadow} of {bundle!r} answers requests itself; a shadow must be another "
                "version (fix the one that answers first, as the default or by a split)",
                field="shadow",
            )


#: Default routing of a bundle.
NEWEST_ANSWERS: Final = Routing()


def _place(bundle: str, key: str) -> float:
    """Hash a key to [0, 1), evenly spread over keys and different for each bundle."""
    digest = hashlib.sha256(f"{bundle}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
