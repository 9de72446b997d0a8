"""Log of evaluations on unseen corruption families of test clips: one line each, kept in the repository.

Families stay unseen only as long as nothing is tuned on their metrics, so the count is published with the metrics.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dimml.errors import SetupError
from dimml_training.compare.cells import TIME_FORMAT
from dimml_training.compare.provenance import provenance

LOG = "unseen.log"


def log_unseen(out: Path, data: str, config_hash: str, what: str) -> int:
    """Append date, commit, hash of the config, data set and what was scored; return the number of lines."""
    path = out / LOG
    now = provenance()
    commit = "no-commit" if now.commit is None else f"{now.commit}{'+' if now.dirty else ''}"
    line = " ".join((datetime.now(UTC).strftime(TIME_FORMAT), commit, config_hash, data, what))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:  # one write per line, so that parallel processes do not mix
            file.write(line + "\n")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another place with --out") from error
    return looks(out)


def looks(out: Path, data: str | None = None) -> int:
    """Count how many times the unseen families have been scored, on one data set or on all."""
    try:
        lines = (out / LOG).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(data is None or line.split(" ")[3:4] == [data] for line in lines)
