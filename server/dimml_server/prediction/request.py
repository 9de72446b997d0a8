"""A request to predict a recording, independent of the transport, and the checks that need the bundle."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dimml.bundle import Bundle
from dimml.errors import InvalidParameterError
from dimml.explanation.damage import Damage, parse_damage
from dimml.explanation.shapley import MOST_MODALITIES
from dimml.media.track_choice import TrackChoice
from dimml.media.types import DecodeRequest, MediaLimits, Source
from dimml.request_parameters import AS_BUNDLED, DAMAGE, EXPLAIN, EXPLANATIONS, Abstention, Explain
from dimml.signal_check import QualityThresholds
from dimml.status import Reason

#: The part that serves every modality that has no part of its own.
MEDIA_PART = "media"
DEFAULT_TOP_K = 5
#: Reasons of the signal check: the media decodes, and shows or sounds like nothing.
NO_SIGNAL: Final = frozenset({Reason.SILENT, Reason.BLACK, Reason.FROZEN})
#: Thresholds below which nothing lies.
_UNCHECKED: Final = QualityThresholds(silence_dbfs=-10_000.0, black_mean=0.0, black_spread=0.0)


@dataclass(frozen=True, slots=True)
class MediaPrediction:
    """One recording to predict.

    ``sources`` are by modality name, or ``media`` for all modalities without a source of their own. ``model`` None
    means the only bundle served, ``version`` None the one that the bundle's split gives to ``route_key``, or to
    ``request_id`` if that is None. ``modalities`` None means all, ``timeout_s`` None the server's default, ``top_k``
    None the five best, ``audio_track`` and ``video_track`` None the main ones. ``explain`` asks for an explanation,
    ``damage`` for damage as ``dimml.explanation.damage.parse_damage`` reads it, ``abstain`` says when the answer does.
    """

    request_id: str
    sources: Mapping[str, Source]
    model: str | None = None
    version: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    top_k: int | None = None
    timeout_s: float | None = None
    modalities: Sequence[str] | None = None
    route_key: str | None = None
    audio_track: TrackChoice | None = None
    video_track: TrackChoice | None = None
    explain: Explain | None = None
    damage: str | None = None
    abstain: Abstention = AS_BUNDLED

    def top_k_of(self, bundle: Bundle) -> int:
        """Return how many classes to list. Raises InvalidParameterError."""
        if self.top_k is None:
            return min(DEFAULT_TOP_K, bundle.classes)
        if not 1 <= self.top_k <= bundle.classes:
            raise InvalidParameterError(
                f"top_k must be from 1 to {bundle.classes}, the number of classes; got {self.top_k}", field="top_k"
            )
        return self.top_k

    def check_explain(self, bundle: Bundle, most: str) -> None:
        """Raise InvalidParameterError for an explanation past ``most``, the setting, or of too many modalities."""
        if self.explain is None:
            return
        allowed = EXPLANATIONS[: EXPLANATIONS.index(most) + 1] if most in EXPLANATIONS else ()
        if self.explain not in allowed:
            offered = f"ask for {' or '.join(allowed)}, or " if allowed else "leave it out, or "
            raise InvalidParameterError(
                f"{EXPLAIN}: this server gives no {self.explain} (its setting is {EXPLAIN}={most}); {offered}have its "
                f"operator set {EXPLAIN}={self.explain}",
                field=EXPLAIN,
            )
        wanted = self._wanted(bundle, [modality.name for modality in bundle.modalities])
        sent = len(wanted if MEDIA_PART in self.sources else wanted & self.sources.keys())
        if sent > MOST_MODALITIES:
            raise InvalidParameterError(
                f"{EXPLAIN}: of at most {MOST_MODALITIES} modalities, and {sent} are sent; choose some by 'modalities'",
                field=EXPLAIN,
            )

    def damage_of(self, bundle: Bundle, *, allowed: bool) -> tuple[Damage, ...]:
        """Parse ``damage`` for a bundle. Raises InvalidParameterError, also for any where it is not ``allowed``."""
        damages = parse_damage(self.damage, bundle.modalities)
        if damages and not allowed:
            raise InvalidParameterError(
                f"{DAMAGE}: this server does no damage (its setting is what_if=false); leave it out, or have its "
                "operator set what_if=true",
                field=DAMAGE,
            )
        return damages

    def decode_request(self, bundle: Bundle, limits: MediaLimits) -> DecodeRequest:
        """Build the decode request for a bundle. Raises InvalidParameterError naming the field."""
        self._check_range()
        known = [modality.name for modality in bundle.modalities]
        for name in self.sources:
            if name != MEDIA_PART and name not in known:
                raise InvalidParameterError(
                    f"{name!r} is not a modality of {bundle.name!r}; send {MEDIA_PART!r} or one of {known}", field=name
                )
        if not self.sources:
            raise InvalidParameterError(
                f"send a recording as {MEDIA_PART!r}, or one file per modality: {known}", field=MEDIA_PART
            )
        wanted = self._wanted(bundle, known)
        shared = self.sources.get(MEDIA_PART)
        found = {name: self.sources.get(name, shared) for name in wanted}
        return DecodeRequest(
            modalities=tuple(modality for modality in bundle.modalities if modality.name in wanted),
            sources={name: source for name, source in found.items() if source is not None},
            clip_s=bundle.clip_s,
            start_s=self.start_s,
            end_s=self.end_s,
            limits=limits,
            quality=bundle.quality,
            margin_s=bundle.margin_s,
            audio_track=self.audio_track,
            video_track=self.video_track,
        )

    def _wanted(self, bundle: Bundle, known: list[str]) -> set[str]:
        if self.modalities is None:
            return set(known)
        for name in self.modalities:
            if name not in known:
                raise InvalidParameterError(
                    f"modalities: {name!r} is not a modality of {bundle.name!r}, which has {known}", field="modalities"
                )
        if not self.modalities:
            raise InvalidParameterError(f"modalities: name at least one of {known}", field="modalities")
        return set(self.modalities)

    def _check_range(self) -> None:
        for field, value in (("start_s", self.start_s), ("end_s", self.end_s)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise InvalidParameterError(f"{field} must be 0 or more seconds, got {value}", field=field)
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise InvalidParameterError(
                f"end_s ({self.end_s:g}) must be after start_s ({self.start_s or 0.0:g})", field="end_s"
            )


def unchecked(request: DecodeRequest, names: Collection[str]) -> DecodeRequest:
    """Return the request for these modalities alone, and without the signal check."""
    wanted = [modality for modality in request.modalities if modality.name in names]
    return replace(
        request,
        modalities=tuple(
            modality.model_copy(update={"may_rest": True} if "may_rest" in type(modality).model_fields else {})
            for modality in wanted
        ),
        sources={name: source for name, source in request.sources.items() if name in names},
        quality=_UNCHECKED,
    )
