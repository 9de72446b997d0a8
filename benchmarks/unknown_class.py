"""How well classes that no encoder was trained on are distinguished from those that were: features against confidence.

    python benchmarks/unknown_class.py training/configs/avmnist_hard.yaml --hold-out three five nine --work runs/unknown

Trains on the clips of all other classes, and scores clips of both kinds, once from each combination of modalities, by

- max-softmax: 1 - the answer's probability (Hendrycks and Gimpel 2017);
- energy: minus the log-sum-exp of the heads' logits (Liu et al. 2020), mean over the modalities present;
- Mahalanobis: distance of the features to the nearest class mean, one shrunk covariance (Lee et al. 2018);
- nearest neighbours: distance of the normalised features to the tenth nearest training clip's (Sun et al. 2022).

Scores of features are standardised by the known validation clips, and averaged over the modalities present. AUROC is
that of telling unknown from known, on validation and on test clips. The threshold of a false-alarm rate is a quantile
of the known validation clips' scores; alarms and detections on test clips are printed for it. One seed: the config's.
Before the table stands which score the bundle of such a run would be served with, by pattern: as `dimml calibrate
--false-alarms` chooses it, on validation clips of known classes alone, each class left out in turn.
The training is kept under ``--work``, and resumed where it was interrupted.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.metrics.classification import auroc_or_none
from dimml.modality import patterns_of
from dimml.prediction_sets.thresholds import conformal_rank
from dimml.prediction_sets.unknown import nearest_mean
from dimml_training.config import TrainConfig, expand_path, load_config, with_fields
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import PreparedData, prepare
from dimml_training.evaluation.heads import HeadLogits, head_logits
from dimml_training.fusion_selection.held_out import FOLDS, HeldOutFusions, pattern_answers
from dimml_training.fusion_selection.reliability_fit import feature_geometry
from dimml_training.fusion_selection.unknown_fit import left_out_areas
from dimml_training.loop.prediction_sets import held_out_answers
from dimml_training.loop.train import train
from dimml_training.run.directory import CONFIG_FILE, RUN_FILE, TrainedRun, load_run

SCORES = ("max-softmax", "energy", "Mahalanobis", "nearest neighbours")
#: Which neighbour's distance is the score.
NEIGHBOUR = 10
FALSE_ALARMS = Decimal("0.05")
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What the training clips of one modality are like: class means and whitening, and normalised features."""

    whitening_DD: npt.NDArray[np.float32]
    means_CD: npt.NDArray[np.float32]
    unit_ND: npt.NDArray[np.float32]

    def mahalanobis(self, features_ND: npt.NDArray[np.float32]) -> Array:
        """Distance to the nearest class mean, ``[N]``."""
        return nearest_mean(features_ND, self.whitening_DD, self.means_CD)

    def neighbours(self, features_ND: npt.NDArray[np.float32]) -> Array:
        """Distance to the ``NEIGHBOUR``-th nearest training clip on the unit sphere, ``[N]``."""
        cosines = _unit(features_ND) @ self.unit_ND.T
        nearest = np.partition(cosines, -NEIGHBOUR, axis=1)[:, -NEIGHBOUR]
        return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * nearest.astype(np.float64), 0.0)))


def main() -> None:
    """Train what is missing, print a table for each combination of modalities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--hold-out", nargs="+", required=True, help="classes that training does not see")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, default=None)
    given = parser.parse_args()
    cache = given.cache_dir or default_cache_dir()
    given.work.mkdir(parents=True, exist_ok=True)
    config = load_config(given.config)
    known, unknown = (_table(config, given.hold_out, given.work, out=out) for out in (False, True))
    out = given.work / "run"
    if not (out / RUN_FILE).exists():
        resume = (out / CONFIG_FILE).exists()
        train(known, out, cache_dir=cache, resume=resume, tell=lambda line: print(line, file=sys.stderr))
    run = load_run(out)
    own = prepare(known, cache, labels=run.labels).splits
    others = prepare(unknown, cache, splits=("validation", "test"), labels=run.labels).splits
    votes = {("train", True): _votes(run, own["train"].rows)}
    for split in ("validation", "test"):
        votes[split, True] = _votes(run, own[split].rows)
        votes[split, False] = _votes(run, others[split].rows)
    _print_choice(run, prepare(known, cache, labels=run.labels), votes)
    _print(run, votes, _known(run, votes["train", True]))


def _table(config: TrainConfig, hold_out: Sequence[str], work: Path, *, out: bool) -> TrainConfig:
    """Write the validation and test clips of the classes held ``out``, or of the others; return the config for them.

    Both tables have the same training clips, those of the other classes: a table without any is refused.
    """
    columns, first = config.data.columns, next(label for label in config.data.labels or () if label not in hold_out)
    with expand_path(config.data.manifest).open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    path = work / ("unknown.csv" if out else "known.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        for line in lines:
            strange = line[columns.label] in hold_out
            if strange == (out and line[columns.split] != config.data.splits["train"]):
                # A class that the run does not know has no label; the one written is never looked at.
                writer.writerow({**line, columns.label: first} if strange else line)
    fields: dict[str, Any] = {
        "data.manifest": str(path.resolve()),
        "data.media_root": config.data.media_root or str(expand_path(config.data.manifest).parent),
        "data.labels": [label for label in config.data.labels or () if label not in hold_out],
    }
    return with_fields(config, fields, "unknown_class")


def _votes(run: TrainedRun, rows: ClipRows) -> HeadLogits:
    return head_logits(run.encoders, run.voting_fused_head, run.modalities, rows, run.quality)


def _known(run: TrainedRun, votes: HeadLogits) -> list[Known]:
    found = []
    for index, _ in enumerate(run.modalities):
        there_N = votes.present_NH[:, index]
        features, labels = votes.features[index][there_N], votes.labels_N[there_N]
        geometry = feature_geometry(features, labels, len(run.labels))
        found.append(Known(geometry.whitening_DD, geometry.whitened_means_CD, _unit(features)))
    return found


def _scores(
    run: TrainedRun, votes: HeadLogits, pattern: Sequence[str], known: Sequence[Known], standards: Any
) -> dict[str, Array]:
    """Score the clips that have the pattern's modalities; more is less known."""
    names = [m.name for m in run.modalities]
    places = [names.index(name) for name in pattern]
    there_N = np.asarray(votes.present_NH[:, places].all(axis=1))
    alone = HeldOutFusions(np.full(len(there_N), -1), (), (run.fusion, run.fusion_parameters))
    p = pattern_answers(votes, names, pattern, alone).probabilities_KC
    logits = votes.logits_NHC[there_N][:, places].astype(np.float64)
    largest = logits.max(axis=2)
    energy = -(largest + np.log(np.exp(logits - largest[:, :, None]).sum(axis=2)))
    found = {"max-softmax": 1.0 - p.max(axis=1).astype(np.float64), "energy": energy.mean(axis=1)}
    for name, score in (("Mahalanobis", Known.mahalanobis), ("nearest neighbours", Known.neighbours)):
        of_each = []
        for place in places:
            raw = score(known[place], votes.features[place][there_N])
            mean, spread = standards.setdefault((name, place), (raw.mean(), raw.std()))
            of_each.append((raw - mean) / spread)
        found[name] = np.mean(of_each, axis=0)
    return found


def _print_choice(run: TrainedRun, data: PreparedData, votes: dict[tuple[str, bool], HeadLogits]) -> None:
    """Print the mean AUROC of each score for classes left out of validation, and the one that is chosen by it."""
    folds = FOLDS if run.fusion_report else 0
    areas = left_out_areas(
        votes["train", True],
        votes["validation", True],
        [m.name for m in run.modalities],
        classes=len(run.labels),
        answers=held_out_answers(run, data, folds),
    )
    print("| modalities | left out: max-softmax | Mahalanobis | chosen |\n|---|---|---|---|")
    for pattern, of in areas.items():
        chosen = max(of, key=lambda name: of[name])
        print(f"| {' and '.join(pattern)} | {of['max_softmax']:.3f} | {of['mahalanobis']:.3f} | {chosen} |")
    print()


def _print(run: TrainedRun, votes: dict[tuple[str, bool], HeadLogits], known: Sequence[Known]) -> None:
    standards: dict[Any, Any] = {}
    print("| modalities | score | AUROC: validation | test | alarms on known test clips | unknown ones found |")
    print("|---|---|---|---|---|---|")
    for pattern in patterns_of([m.name for m in run.modalities]):
        # The known validation clips come first, and set the standards.
        keys = [("validation", True), ("validation", False), ("test", True), ("test", False)]
        scores = {key: _scores(run, votes[key], pattern, known, standards) for key in keys}
        for name in SCORES:
            areas = [_auroc(scores[split, False][name], scores[split, True][name]) for split in ("validation", "test")]
            calm = np.sort(scores["validation", True][name])
            threshold = calm[min(conformal_rank(len(calm), 1 - FALSE_ALARMS), len(calm)) - 1]
            alarms, found = ((scores["test", kind][name] > threshold).mean() for kind in (True, False))
            cells = (" and ".join(pattern), name, *(f"{area:.3f}" for area in areas), f"{alarms:.1%}", f"{found:.1%}")
            print(f"| {' | '.join(cells)} |")
    test = votes["test", True]
    right_H = (test.logits_NHC.argmax(axis=2) == test.labels_N[:, None]).mean(axis=0)
    clips = {f"{split}, {'known' if kind else 'unknown'}": len(of.labels_N) for (split, kind), of in votes.items()}
    heads = ", ".join(f"{head} {share:.1%}" for head, share in zip(test.heads, right_H, strict=True))
    print(f"\nclips: {clips}; right among known test clips: {heads}")


def _auroc(unknown: Array, known: Array) -> float:
    scores = np.concatenate([unknown, known])
    found = auroc_or_none(scores, np.repeat([True, False], [len(unknown), len(known)]))
    return float("nan") if found is None else found


def _unit(features_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12))


if __name__ == "__main__":
    main()
