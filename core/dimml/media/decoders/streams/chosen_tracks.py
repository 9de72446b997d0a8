"""The tracks of a container that are read: the ones that a request names, else its main ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import av

from dimml.media.track_choice import LOUDEST, TRACK_FIELDS, TrackChoice
from dimml.modality import Track
from dimml.status import Reason

#: Sound tracks that are compared, and tracks that a message lists.
MAX_TRACKS: Final = 16
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9-]{2,16}")


def chosen_streams(container: Any, kind: Track, wanted: TrackChoice | None) -> list[Any]:
    """Choose the streams of a kind that have a decoder: one, or none; several of which the loudest is wanted.

    Without a choice, and among several of one language, it is the main one by FFmpeg's measure; never cover art.
    """
    tracks = tracks_of(container, kind)
    main = _main(container, kind)
    decoded = sorted((one for one in tracks if one.codec_context is not None), key=lambda one: one is not main)
    if wanted == LOUDEST:
        return decoded[:MAX_TRACKS]
    if isinstance(wanted, int):
        decoded = [one for one in tracks[wanted : wanted + 1] if one in decoded]
    elif wanted is not None:
        decoded = [one for one in decoded if _speaks(one, wanted)]
    return decoded[:1]


def why_none(container: Any, kind: Track, wanted: TrackChoice | None) -> tuple[Reason, str | None]:
    """Say why ``chosen_streams`` finds none: a reason, and a sentence about a track that was named."""
    tracks = tracks_of(container, kind)
    named = tracks
    if isinstance(wanted, int):
        named = tracks[wanted : wanted + 1]
    elif wanted not in (None, LOUDEST):
        named = [one for one in tracks if _speaks(one, str(wanted))]
    if named:
        # There is such a track, but no decoder for it.
        return Reason.UNDECODABLE, None
    if wanted is None or not tracks:
        return Reason.NO_TRACK, None
    listed = ", ".join(track_words(container, one) for one in tracks[:MAX_TRACKS])
    return Reason.NO_TRACK, no_such_track(kind, wanted, listed)


def no_such_track(kind: Track, wanted: TrackChoice, listed: str) -> str:
    """The sentence about a track that is not there; ``listed`` are those that are."""
    which = f"track {wanted}" if isinstance(wanted, int) else f"track in {wanted!r}"
    return f"it has no {'sound' if kind == 'audio' else 'picture'} {which} ({TRACK_FIELDS[kind]}): there is {listed}"


def tracks_of(container: Any, kind: Track) -> Sequence[Any]:
    """All streams of a kind in the order of the file, without cover art."""
    cover = av.stream.Disposition.attached_pic
    return [one for one in container.streams if one.type == kind and not one.disposition & cover]


def track_words(container: Any, stream: Any) -> str:
    """A track's number and, if the file states it, its language: ``1 (eng)``."""
    number = tracks_of(container, stream.type).index(stream)
    language = _language(stream)
    stated = language != "und" and _LANGUAGE.fullmatch(language)
    return f"{number} ({language})" if stated else str(number)


def _main(container: Any, kind: Track) -> Any | None:
    try:
        return container.streams.best(kind)
    except IndexError:
        # FFmpeg found a stream that PyAV has not listed: it appeared while the container was probed.
        return None


def _language(stream: Any) -> str:
    return str(stream.metadata.get("language", ""))


def _speaks(stream: Any, language: str) -> bool:
    # A transport stream names a language for each of two mono channels: "eng,fra".
    return language in _language(stream).lower().split(",")
