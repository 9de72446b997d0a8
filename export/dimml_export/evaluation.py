"""What a run's own files say of its evaluation, for the manifest: figures under corruptions, and the data's digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from dimml.errors import SetupError
from dimml_training.run.directory import TrainedRun, read_data_digest

#: Written by ``dimml evaluate --corruptions``.
CORRUPTIONS_FILE: Final = "corruptions.json"
#: What is kept of a condition; the rest is in the run's report.
_FIGURES: Final = ("group", "seen", "accuracy", "macro_f1", "nll", "ece", "better", "regret")
_WAY_OUT: Final = "`dimml evaluate RUN --corruptions` measures them anew"


def corrupted_figures(folder: Path, run: TrainedRun) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the figures of the run in ``folder`` under corruptions, with remarks on why there are none.

    A run that was never evaluated under corruptions has none, without a remark. Raises SetupError if the file is
    damaged.
    """
    path = folder / CORRUPTIONS_FILE
    try:
        found = json.loads(path.read_bytes())
        if found["fusion"] != run.fusion.model_dump(mode="json"):
            return None, [f"the manifest has no figures under corruptions: they are of another fusion; {_WAY_OUT}"]
        conditions = {
            name: {figure: value for figure, value in figures.items() if figure in _FIGURES}
            for name, figures in found["conditions"].items()
        }
        return {
            "split": found["split"],
            "families": found["families"],
            "seed": found["seed"],
            "conditions": conditions,
            "means": found["means"],
        }, []
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"{path} is damaged: {error}; {_WAY_OUT}") from error


def data_digest(folder: Path) -> dict[str, str]:
    """Return ``data_sha256`` of the run's clips, labels and splits; empty for a run that did not note it."""
    digest = read_data_digest(folder)
    return {} if digest is None else {"data_sha256": digest}
