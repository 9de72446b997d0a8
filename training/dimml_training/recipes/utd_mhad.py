"""UTD-MHAD (Chen, Jafari, Kehtarnavaz 2015): 27 actions by eight people, a depth camera and an inertial sensor.

Layout: ``labels.csv`` with the columns below, ``depth/*.mp4`` and ``inertial/*.npy`` (FP32 ``[6, samples]`` at 50 Hz,
acceleration in g, rotation in degrees/s), as docs/data.md says. Split by person, as its authors do: odd subjects train,
even ones test. One of the training subjects validates; ``fold_1`` to ``fold_7`` let each of them do so.
"""

from __future__ import annotations

from pathlib import Path

from dimml.errors import DataError
from dimml_training.recipes.table import Listing, Row, count_warning, read_csv

#: Recordings that the data set has.
RECORDINGS = 861
TRAIN_SUBJECTS = ("1", "3", "5", "7")


def list_utd_mhad(root: Path, *, validation_subject: int = 7) -> Listing:
    """List one row per recording: ``depth`` and ``inertial`` beneath root, ``label``, ``subject`` and ``split``.

    ``fold_<subject>`` is the split in which that training subject validates.

    Raises DataError if labels.csv cannot be read, and for a ``validation_subject`` that does not train.
    """
    if str(validation_subject) not in TRAIN_SUBJECTS:
        raise DataError(
            f"subject {validation_subject} cannot validate: choose one of {', '.join(TRAIN_SUBJECTS)}, who train; the "
            "others are the test split",
            field="--validation-subject",
        )
    labels = read_csv(
        root / "labels.csv", "the labels of UTD-MHAD", ("depth", "inertial", "action", "subject", "trial")
    )
    rows: list[Row] = [
        {
            "depth": row["depth"],
            "inertial": row["inertial"],
            "label": row["action"],
            "subject": row["subject"],
            "split": _split(row["subject"], str(validation_subject)),
            **{f"fold_{subject}": _split(row["subject"], subject) for subject in TRAIN_SUBJECTS},
        }
        for row in labels
    ]
    return Listing(rows, ["depth", "inertial"], count_warning(len(rows), RECORDINGS, "recordings"))


def _split(subject: str, validation_subject: str) -> str:
    if subject == validation_subject:
        return "validation"
    return "train" if subject in TRAIN_SUBJECTS else "test"
