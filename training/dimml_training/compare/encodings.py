"""A run's encodings of every condition, saved beside the run, so that scoring a new method needs no encoding.

They are exact, as FP32: the fusion must be chosen on the same values that it gets at serving.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.digests import historic, without
from dimml.errors import SetupError
from dimml.system.files import write_atomically
from dimml_training.compare.plan import digest
from dimml_training.config.corruption_suite import Condition
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.encoding import Damage, EncodedModality, encode_conditions
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import Progress
from dimml_training.run.directory import TrainedRun

FOLDER = "encoded"
PARTS = ("features", "logits", "present")


@dataclass(frozen=True)
class KeptEncodings:
    """Encodings of one split under some conditions, as ``corruptions.encoding.Encoded``."""

    labels_N: npt.NDArray[np.int64]
    by_condition: Mapping[str, Sequence[Mapping[str, EncodedModality]]]

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        """Encodings of every modality under one draw of a condition."""
        return dict(self.by_condition[condition.name][draw])


def suite_digest(conditions: Sequence[Condition]) -> str:
    """Digest of the conditions, sixteen hex digits."""
    documents = [without(asdict(condition), historic(condition)) for condition in conditions]
    return digest(json.loads(json.dumps(documents, default=str)))


def encodings(
    folder: Path,
    split: str,
    run: TrainedRun,
    clips: ClipRows,
    conditions: Sequence[Condition],
    *,
    seed: int,
    progress: Progress | None = None,
    damage: Damage = corrupt,
) -> KeptEncodings:
    """Read the saved encodings if they have all conditions; otherwise encode and replace them.

    ``split`` names their file; conditions of other families (``damage``) go to files of their own.
    """
    path = folder / FOLDER / f"{split}.npz"
    keys = {condition.name: digest([suite_digest([condition]), seed]) for condition in conditions}
    kept = _read(path, keys)
    if kept is not None:
        return kept
    made = encode_conditions(
        run.encoders, run.modalities, clips, conditions, run.quality, seed=seed, progress=progress, damage=damage
    )
    found = KeptEncodings(made.labels_N, {c.name: [made.get(c, draw) for draw in range(c.draws)] for c in conditions})
    _write(path, keys, found)
    return found


def _write(path: Path, keys: Mapping[str, str], kept: KeptEncodings) -> None:
    """Write each distinct encoding once: conditions share those of the modalities that they do not damage."""
    places: dict[int, int] = {}
    arrays: dict[str, npt.NDArray[Any]] = {"labels": kept.labels_N}
    index: dict[str, list[dict[str, int]]] = {}
    for condition, draws in kept.by_condition.items():
        index[condition] = []
        for of_draw in draws:
            for encoded in of_draw.values():
                if id(encoded.features_ND) not in places:
                    place = places[id(encoded.features_ND)] = len(places)
                    values = (encoded.features_ND, encoded.logits_NC, encoded.present_N)
                    arrays |= {f"{part}_{place}": value for part, value in zip(PARTS, values, strict=True)}
            index[condition].append({name: places[id(encoded.features_ND)] for name, encoded in of_draw.items()})
    arrays["index"] = np.frombuffer(json.dumps({"keys": keys, "conditions": index}).encode(), np.uint8)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda temporary: _save(temporary, arrays))
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; free some space or choose another --work") from error


def _save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    with path.open("wb") as file:  # numpy adds its own ending to the name of a file that is not open yet
        np.savez(file, allow_pickle=False, **arrays)


def _read(path: Path, keys: Mapping[str, str]) -> KeptEncodings | None:
    """Read the saved encodings of all these conditions, or None if any is missing or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            document = json.loads(file["index"].tobytes())
            if any(document["keys"].get(condition) != key for condition, key in keys.items()):
                return None
            places: dict[int, EncodedModality] = {}

            def at(place: int) -> EncodedModality:
                if place not in places:
                    places[place] = EncodedModality(*(file[f"{part}_{place}"] for part in PARTS))
                return places[place]

            return KeptEncodings(
                file["labels"],
                {
                    condition: [
                        {name: at(place) for name, place in of_draw.items()}
                        for of_draw in document["conditions"][condition]
                    ]
                    for condition in keys
                },
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
