"""Tasks for Label Studio: what ``Import`` takes as JSON, and the labelling interface that shows them.

Format: Label Studio's guide, "Import pre-annotated data" and "Labeling configuration". Its import accepts labels that
the interface does not have, and scores above 1, without a word (1.23): what is written here has been checked, and what
comes back is checked again (``annotations``).
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args
from urllib.parse import quote
from xml.etree import ElementTree

from dimml.errors import ConfigurationError
from dimml.system.files import write_atomically
from dimml_client.labelling.selection import Chosen, Selection
from dimml_client.scoring.recording import MEDIA_PART

Player = Literal["video", "audio", "image"]
PLAYERS: Final[tuple[Player, ...]] = get_args(Player)
TASKS_FILE, INTERFACE_FILE = "tasks.json", "interface.xml"
#: Name of the choice in the interface, and the field of a task that names the recording.
LABEL, KEY = "label", "key"
_TAGS: Final = {"video": "Video", "audio": "Audio", "image": "Image"}


class Locations:
    """Where Label Studio finds the recordings: ``prefix`` before their path below ``root``; without it, as they are."""

    def __init__(self, prefix: str | None = None, root: Path | None = None) -> None:
        """Raise ConfigurationError for a root without a prefix."""
        if root is not None and prefix is None:
            raise ConfigurationError("--root goes with --media-url: it is what that stands for", field="--root")
        self._prefix, self._root = prefix, root

    def url(self, part: str) -> str:
        """Return the URL of a recording. Raises ConfigurationError if it does not stand below the root."""
        if self._prefix is None or "://" in part:
            return part
        path = part
        if self._root is not None:
            try:
                path = Path(part).absolute().relative_to(self._root.absolute()).as_posix()
            except ValueError:
                raise ConfigurationError(
                    f"{part} does not stand below --root {self._root}: name a folder that holds all recordings",
                    field="--root",
                ) from None
        return self._prefix + quote(path)


def task(chosen: Chosen, selection: Selection, locations: Locations, parts: Sequence[str]) -> dict[str, Any]:
    """Make one task; ``parts`` are those of all tasks, of which an absent one is empty.

    One that was drawn by lot has no prediction: a label that is suggested sways who labels, and this share is to say
    how often the suggestion is right.
    """
    data: dict[str, Any] = {KEY: chosen.key, "id": chosen.id, "reason": chosen.reason}
    data |= {column(part): locations.url(chosen.parts[part]) if part in chosen.parts else "" for part in parts}
    data["range"] = "" if chosen.start_s is None or chosen.end_s is None else _range(chosen.start_s, chosen.end_s)
    if chosen.random:
        return {"data": data}
    choice = {
        "from_name": LABEL,
        "to_name": column(parts[0]),
        "type": "choices",
        "value": {"choices": [chosen.label]},
        "score": round(chosen.probability, 6),
    }
    prediction = {
        "model_version": f"{selection.bundle}:{selection.version}",
        "score": round(chosen.probability, 6),
        "result": [choice],
    }
    return {"data": data, "predictions": [prediction]}


def interface(labels: Sequence[str], parts: Sequence[str], player: Player) -> str:
    """Write the labelling interface: a player for every part, the range to look at, and one choice of the labels."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$range")
    for part in parts:
        ElementTree.SubElement(view, _TAGS[player], name=column(part), value=f"${column(part)}")
    choices = ElementTree.SubElement(
        view, "Choices", name=LABEL, toName=column(parts[0]), choice="single", required="true", showInline="true"
    )
    for label in labels:
        ElementTree.SubElement(choices, "Choice", value=label)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def write_tasks(folder: Path, selection: Selection, locations: Locations, player: Player | None = None) -> None:
    """Write ``tasks.json`` and ``interface.xml`` into a folder.

    ``player`` is by default what the files' names say. Raises ConfigurationError if they say nothing or several, or if
    a file cannot be written.
    """
    parts = part_names(selection.chosen)
    tasks = [task(chosen, selection, locations, parts) for chosen in selection.chosen]
    shown = interface(selection.labels, parts, player or player_of(selection.chosen))
    try:
        write_atomically(folder / TASKS_FILE, (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode())
        write_atomically(folder / INTERFACE_FILE, shown.encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write into {folder}: {error.strerror}", field="--out") from error


def part_names(chosen: Sequence[Chosen]) -> list[str]:
    """List the parts that any recording has, in the order in which they come."""
    return list(dict.fromkeys(part for one in chosen for part in one.parts))


def column(part: str) -> str:
    """Name the field of a task, and the column of a clip table, that holds a part."""
    return part if part == MEDIA_PART else f"path_{part}"


def player_of(chosen: Sequence[Chosen]) -> Player:
    """Find which player shows the recordings, by their names. Raises ConfigurationError if that is not one."""
    kinds = {_kind(part) for one in chosen for part in one.parts.values()}
    known = [player for player in PLAYERS if player in kinds]
    if len(known) == 1 and None not in kinds:
        return known[0]
    if known == ["video", "audio"] and None not in kinds:
        return "video"  # Browsers play sound in it.
    names = ", ".join(sorted(kind or "unknown" for kind in kinds))
    raise ConfigurationError(
        f"the recordings' names are those of {names} files: say which player shows them with --player "
        f"{', '.join(PLAYERS[:-1])} or {PLAYERS[-1]}",
        field="--player",
    )


def _kind(part: str) -> str | None:
    guessed, _ = mimetypes.guess_type(PurePosixPath(part.split("?", maxsplit=1)[0]).name)
    kind = (guessed or "").partition("/")[0]
    return kind if kind in PLAYERS else None


def _range(start_s: float, end_s: float) -> str:
    return f"from {start_s:.2f} s to {end_s:.2f} s"
