"""Unknown classes: distances against scipy's, false alarms against chance, and what a manifest may hold."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.distance import mahalanobis

from dimml.prediction_sets.unknown import KnownFeatures, Matrix, UnknownClass, UnknownThreshold, nearest_mean
from support.tiny_sets import SETS, bundle_of_sets, tiny_sets, tiny_unknown

RNG = np.random.default_rng(5)


def test_the_distance_is_scipys_to_the_nearest_mean() -> None:
    spread = RNG.standard_normal((4, 4))
    covariance = spread @ spread.T + np.eye(4)
    means, rows = RNG.standard_normal((3, 4)), RNG.standard_normal((20, 4))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values) @ vectors.T
    ours = nearest_mean(rows.astype(np.float32), whitening.astype(np.float32), (means @ whitening).astype(np.float32))
    theirs = [min(mahalanobis(row, mean, np.linalg.inv(covariance)) for mean in means) for row in rows]
    assert ours == pytest.approx(np.array(theirs), abs=1e-5)


def test_a_score_is_the_mean_over_the_modalities_that_are_ok() -> None:
    """Each modality's distance is the first feature's from 0; at 0.4 and 0.1 both together are within 0.3."""
    zero = {name: known.model_copy(update={"means": Matrix.of(np.zeros((3, 8)))}) for name, known in known_of().items()}
    unknown = tiny_unknown().model_copy(update={"modalities": zero})
    features = {name: np.zeros((4, 8), np.float32) for name in zero}
    features["audio"][:, 0], features["visual"][:, 0] = 0.4, 0.1
    patterns = [("audio", "visual"), ("audio",), ("visual",), ()]
    sure = np.ones((4, 3))
    assert unknown.unknown(features, patterns, sure) == [False, True, False, False]


def test_distances_without_all_steps_are_those_with_them() -> None:
    """Rows and means far from zero, where squares of them would cancel, and a row that is a mean."""
    spread = RNG.standard_normal((6, 6)).astype(np.float32)
    means = (100 + RNG.standard_normal((4, 6))).astype(np.float32)
    rows = np.linalg.solve(spread.T.astype(np.float64), (100 + RNG.standard_normal((30, 6))).T).T.astype(np.float32)
    known = KnownFeatures(whitening=Matrix.of(spread), means=Matrix.of(means), centre=0.5, spread=2.0)
    expected = [min(np.linalg.norm(row @ spread.astype(np.float64) - mean) for mean in means) for row in rows]
    assert known.standardised(rows) == pytest.approx((np.array(expected) - 0.5) / 2.0, abs=2e-3)
    plain = KnownFeatures(whitening=Matrix.of(np.eye(6)), means=Matrix.of(means), centre=0.0, spread=1.0)
    assert plain.standardised(means[:1]) == pytest.approx([0.0], abs=2e-3)


def test_a_pattern_may_be_scored_by_the_answer_s_probability() -> None:
    """Of both modalities; the sound alone goes on being scored by its features."""
    of_features = tiny_unknown()
    whole = UnknownThreshold(modalities=("audio", "visual"), clips=19, threshold=0.4, score="max_softmax")
    unknown = of_features.model_copy(update={"patterns": (whole, *of_features.patterns[1:])})
    near = {name: known.means.array[:1].repeat(3, axis=0) for name, known in known_of().items()}
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert unknown.unknown(near, [("audio", "visual"), ("audio", "visual"), ("audio",)], p) == [False, True, False]
    at_threshold = np.array([[0.6 - 1e-7, 0.4, 0.0]])
    first = {name: rows[:1] for name, rows in near.items()}
    assert unknown.unknown(first, [("audio", "visual")], at_threshold) == [False]


def test_an_answer_alone_and_among_others_is_told_from_an_unknown_one_alike() -> None:
    """Rows of all patterns, by one call and one by one, against distances added up in double precision."""
    unknown, known = tiny_unknown(), known_of()
    features = {name: (0.5 * RNG.standard_normal((40, 8))).astype(np.float32) for name in known}
    patterns = [[("audio", "visual"), ("audio",), ("visual",), ()][row % 4] for row in range(40)]
    p = np.full((40, 3), 1 / 3)
    expected = []
    for row, pattern in enumerate(patterns):
        distances = {
            name: np.linalg.norm(features[name][row] @ of.whitening.array - of.means.array, axis=1).min()
            for name, of in known.items()
        }
        scores = [(distances[name] - known[name].centre) / known[name].spread for name in pattern]
        expected.append(bool(pattern) and bool(np.mean(scores) > unknown.thresholds[pattern].threshold))
    assert True in expected[:3], "some of these are to be unknown"
    assert unknown.unknown(features, patterns, p) == expected
    one_by_one = [
        unknown.unknown({name: rows[row : row + 1] for name, rows in features.items()}, [pattern], p[row : row + 1])
        for row, pattern in enumerate(patterns)
    ]
    assert one_by_one == [[found] for found in expected]


def test_features_that_no_pattern_needs_may_be_missing() -> None:
    patterns = tuple(of.model_copy(update={"score": "max_softmax"}) for of in tiny_unknown().patterns)
    bare = UnknownClass(false_alarms=Decimal("0.05"), modalities={}, patterns=patterns)
    bundle_of_sets(prediction_sets=tiny_sets(**SETS, unknown=bare))
    with pytest.raises(ValidationError, match="audio and visual are scored by features, and visual has none"):
        UnknownClass(
            false_alarms=Decimal("0.05"), modalities={"audio": known_of()["audio"]}, patterns=tiny_unknown().patterns
        )


def known_of() -> dict[str, KnownFeatures]:
    return tiny_unknown().modalities


def test_a_matrix_comes_back_to_the_last_bit() -> None:
    array = RNG.standard_normal((3, 5)).astype(np.float32)
    again = Matrix.model_validate_json(Matrix.of(array).model_dump_json())
    assert again.array.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [(1, "AAAA", "3 bytes, not those of 1 x 1"), (1, "?", "not base64"), (1, "AADAfw==", "NaN or infinity")],
)
def test_a_damaged_matrix_is_refused(rows: int, data: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Matrix(rows=rows, columns=1, data=data)


def test_a_manifest_s_features_must_be_its_encoders() -> None:
    whole = tiny_unknown()
    bundle_of_sets(prediction_sets=tiny_sets(**SETS, unknown=whole))
    narrow = KnownFeatures(whitening=Matrix.of(np.eye(4)), means=Matrix.of(np.eye(3, 4)), centre=0.0, spread=1.0)
    other = whole.model_copy(update={"modalities": {**whole.modalities, "audio": narrow}})
    with pytest.raises(ValidationError, match="unknown: features and classes are"):
        bundle_of_sets(prediction_sets=tiny_sets(**SETS, unknown=other))
    lacking = whole.model_copy(update={"patterns": whole.patterns[:1]})
    with pytest.raises(ValidationError, match="no threshold for answers from audio"):
        bundle_of_sets(prediction_sets=tiny_sets(**SETS, unknown=lacking))
