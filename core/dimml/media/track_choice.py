"""Naming one of a recording's tracks in a request: by its number, its language, or as the loudest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dimml.errors import InvalidParameterError
from dimml.modality import Track

#: A number from 0 among the tracks of its kind, a language in small letters, or ``LOUDEST``.
TrackChoice = int | str

#: The field of a request that names the track of a kind.
TRACK_FIELDS: Final[Mapping[Track, str]] = {"audio": "audio_track", "video": "video_track"}
#: Of sound: the track with the most power in what is judged.
LOUDEST: Final = "loudest"
_MAX_NUMBER: Final = 999
#: ISO 639 as containers hold it (``eng``), and the tags of BCP 47 that newer Matroska files have (``en-US``).
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,3}")


def parse_track(kind: Track, value: object) -> TrackChoice | None:
    """Parse a field's value, as a number or as text; None and an empty text name no track.

    Raises InvalidParameterError.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        text = value.strip().lower()
        if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_NUMBER)):
            return int(text)
        if _LANGUAGE.fullmatch(text) or (text == LOUDEST and kind == "audio"):
            return text
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER:
        return value
    field = TRACK_FIELDS[kind]
    forms = "a number from 0, a language as the recording states it, such as 'eng'"
    forms += ", or 'loudest'" if kind == "audio" else ""
    raise InvalidParameterError(f"{field} must be {forms}; got {str(value)[:40]!r}", field=field)
