"""Which version of a bundle answers a request that names none, and which one looks on."""

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
    #: Whether the server chose the version; requests that name one are not for a shadow.
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """Of one bundle: percent of the requests by version, 100 in all, and the shadow. Without a split, the newest
    version that is loaded has all of it."""

    split: Mapping[int, float] = field(default_factory=dict)
    shadow: int | None = None

    @property
    def versions(self) -> set[int]:
        """Those that must stay loaded."""
        return {*self.split, *(() if self.shadow is None else (self.shadow,))}

    def default(self, served: Collection[int]) -> int:
        """The version with the largest share, of equals the newest: the one meant where only one can be."""
        return max(self.split or served, key=lambda version: (self.split.get(version, 0.0), version))

    def choose(self, served: Collection[int], bundle: str, key: str | None) -> int:
        """The version for a request: the same key gets the same one, a request without a key one by chance."""
        if len(self.split) < 2:
            return self.default(served)
        place = random.random() if key is None else _place(bundle, key)  # noqa: S311 - a share, not a secret
        # The newest first: as its share grows, no key leaves it again.
        for version in sorted(self.split, reverse=True):
            place -= self.split[version] / WHOLE_PERCENT
            if place < 0.0:
                return version
        return min(self.split)

    def without(self, version: int) -> Routing:
        """After a version is gone: its share goes to the others in proportion, to the newest where there are none."""
        left = {other: share for other, share in self.split.items() if other != version}
        total = sum(left.values())
        split = {other: WHOLE_PERCENT * share / total for other, share in left.items()}
        return Routing(split, None if self.shadow == version else self.shadow)

    def check(self, bundle: str, served: Collection[int]) -> None:
        """Raise InvalidParameterError where the versions that are served cannot be used so."""
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


#: What counts for a bundle of which nothing was said.
NEWEST_ANSWERS: Final = Routing()


def _place(bundle: str, key: str) -> float:
    """0 to 1, spread evenly over keys, another for each bundle."""
    digest = hashlib.sha256(f"{bundle}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
