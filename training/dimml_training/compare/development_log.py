"""Log of evaluations on the development families of test clips: one line each, kept in the repository.

Training and the choice of a fusion do not see these families, but people who develop do, each time their metrics are
looked at; so the count is published with the metrics. Until the sealed final families came they were called unseen.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dimml.errors import SetupError
from dimml_training.compare.cells import TIME_FORMAT
from dimml_training.compare.provenance import provenance

LOG = "development.log"
#: What was logged while the families were called unseen; its lines count, too.
FORMER_LOG = "unseen.log"


def log_development(out: Path, data: str, config_hash: str, what: str) -> int:
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
    """Count how many times the development families have been scored, on one data set or on all."""
    lines: list[str] = []
    for name in (FORMER_LOG, LOG):
        path = out / name
        if path.is_file():
            try:
                lines += path.read_text(encoding="utf-8").splitlines()
            except OSError as error:
                raise SetupError(f"cannot read {path}: {error.strerror}") from error
    return sum(data is None or line.split(" ")[3:4] == [data] for line in lines)
