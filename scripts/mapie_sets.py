"""Thresholds and prediction sets by MAPIE, an independent implementation: ``tests/core/mapie_sets.json``.

    python -m venv mapie && mapie/bin/pip install mapie==1.6.0
    mapie/bin/python scripts/mapie_sets.py tests/core/mapie_sets.json

``tests/core/test_prediction_sets.py`` holds ``dimml.prediction_sets`` to the file. MAPIE brings scikit-learn and four
packages that nothing else here needs, so it stays outside of the environment that runs the tests.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

#: Clips, classes, sharpness of the probabilities and coverage of each case. Of the sizes, (n + 1) c is whole or not,
#: and 99 at 0.55 is where a product of floats is above the whole number that it stands for.
CASES: Final = (
    (99, 3, 1.0, "0.55"),
    (99, 3, 1.0, "0.9"),
    (100, 10, 2.0, "0.9"),
    (150, 4, 0.5, "0.8"),
    (21, 5, 1.0, "0.95"),
    (40, 5, 3.0, "0.5"),
)
NEW: Final = 12


class AsGiven(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A fitted classifier whose inputs are its probabilities."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x: Any, y: Any) -> AsGiven:
        """Nothing to fit."""
        return self

    def __sklearn_is_fitted__(self) -> bool:  # scikit-learn's protocol
        return True

    def predict_proba(self, x: Any) -> Any:
        """Return the input."""
        return np.asarray(x)

    def predict(self, x: Any) -> Any:
        """Return the most probable class."""
        return np.asarray(x).argmax(axis=1)


def case(clips: int, classes: int, sharpness: float, coverage: str) -> dict[str, Any]:
    """Draw probabilities and labels, and let MAPIE calibrate on the first clips and give sets for the others."""
    # Here, since it is in no environment of ours.
    from mapie.classification import SplitConformalClassifier

    rng = np.random.default_rng((clips, classes, int(100 * float(coverage))))
    logits = sharpness * rng.standard_normal((clips + NEW, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # In single precision, as an engine gives them.
    p = p.astype(np.float32).astype(np.float64)
    labels = np.array([rng.choice(classes, p=one / one.sum()) for one in p])
    conformal = SplitConformalClassifier(
        AsGiven(classes), confidence_level=float(coverage), conformity_score="lac", prefit=True
    )
    conformal.conformalize(p[:clips], labels[:clips])
    _, sets = conformal.predict_set(p[clips:])
    (threshold,) = np.ravel(conformal._mapie_classifier.conformity_score_function_.quantiles_)
    return {
        "coverage": coverage,
        "probabilities": p.tolist(),
        "labels": labels.tolist(),
        "clips": clips,
        "threshold": float(threshold),
        "sets": sets[:, :, 0].astype(int).tolist(),
    }


def main() -> None:
    """Write the file that is named."""
    found = {"mapie": version("mapie"), "cases": [case(*one) for one in CASES]}
    Path(sys.argv[1]).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
