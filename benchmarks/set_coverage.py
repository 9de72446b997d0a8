"""Coverage and size of a run's prediction sets on its test clips: clean, with modalities absent, under seen families.

    dimml calibrate runs/grid_digit --coverage 0.9
    python benchmarks/set_coverage.py runs/grid_digit
    python benchmarks/set_coverage.py runs/grid_digit --development --results runs     # also under development families

Three tables: for each pattern of modalities present, the share of test clips whose set holds the true label beside the
0.1 % quantile of the beta-binomial that this share follows where the promise holds, and the mean share over 50 random
re-splits of validation and test clips; the same sets under each seen corruption family; the time that a set takes.
Development families are left alone unless asked for: each look at them is a line of development.log
(docs/robustness.md).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import betabinom

from dimml.bundle import Bundle, Encoder
from dimml.modality import patterns_of
from dimml.prediction_sets.answers import answer_sets
from dimml.prediction_sets.thresholds import PredictionSets, conformal_rank, in_set, scores_of
from dimml.status import OK
from dimml_training.compare.development_log import log_development
from dimml_training.compare.plan import digest
from dimml_training.config.corruption_suite import Which, conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.scoring import Answers, answers_to
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.prepare import PreparedData, prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.fusion_selection.held_out import HeldOutFusions, PatternAnswers, pattern_answers
from dimml_training.loop.prediction_sets import held_out_answers
from dimml_training.run.directory import TrainedRun, load_run
from dimml_training.run.prediction_sets import fusion_sha256, read_sets

RE_SPLITS = 50
QUANTILE = 0.001
COLUMNS = (
    *("modalities", "calibration clips", "test clips", "accuracy", "covered", "0.1 % quantile", "re-splits"),
    "labels in a set",
)


def main() -> None:
    """Print the tables of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run with prediction_sets.json")
    parser.add_argument("--cache-dir", type=Path, default=None)
    parser.add_argument("--development", action="store_true", help="the same sets under the development families")
    parser.add_argument(
        "--results", type=Path, default=Path("runs"), help="folder of the development.log that counts looks"
    )
    given = parser.parse_args()
    run, record = load_run(given.run), read_sets(given.run)
    if record is None or record.fusion_sha256 != fusion_sha256(run.fusion, run.fusion_parameters):
        parser.error(f"{given.run} has no thresholds of its fusion: dimml calibrate {given.run} --coverage 0.9")
    data = prepare(run.config, given.cache_dir or default_cache_dir(), labels=run.labels)
    by_pattern(run, record.sets, data)
    by_family(run, record.sets, data, "seen")
    if given.development:
        log_development(given.results, run.name, digest(run.config.model_dump(mode="json")), "set_coverage")
        by_family(run, record.sets, data, "development")
    cost(run, record.sets)


def by_pattern(run: TrainedRun, sets: PredictionSets, data: PreparedData) -> None:
    """Print clean coverage for every pattern of modalities."""
    test = data.splits["test"].rows
    votes = head_logits(run.encoders, run.voting_fused_head, run.modalities, test, run.quality)
    alone = HeldOutFusions(np.full(len(test), -1), (), (run.fusion, run.fusion_parameters))
    names = [modality.name for modality in run.modalities]
    held_out = {one.modalities: one for one in held_out_answers(run, data, sets.folds)}
    print(f"coverage {sets.coverage}, {sets.folds} folds, {run.fusion.certainty}, {run.fusion.pooling}\n")
    print(
        "| modalities | clips: calibration | test | accuracy | covered | 0.1 % quantile | re-splits | labels in a set |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for pattern, kept in zip(patterns_of(names), sets.patterns, strict=True):
        found = pattern_answers(votes, names, pattern, alone)
        p, labels = found.probabilities_KC, found.labels_K
        inside = in_set(p, np.full(len(labels), kept.threshold))
        covered = inside[np.arange(len(labels)), labels]
        least = betabinom.ppf(QUANTILE, len(labels), kept.rank, kept.clips + 1 - kept.rank) / len(labels)
        cells = (
            " and ".join(pattern),
            str(kept.clips),
            str(len(labels)),
            f"{(p.argmax(axis=1) == labels).mean():.1%}",
            f"{covered.mean():.3f}",
            f"{least:.3f}",
            f"{re_split(held_out[pattern], found, sets):.3f}",
            f"{inside.sum(axis=1).mean():.2f}",
        )
        print(f"| {' | '.join(cells)} |")


def re_split(held_out: PatternAnswers, test: PatternAnswers, sets: PredictionSets) -> float:
    """Return the mean coverage over random splits of all clips, as many of them for calibration as there are."""
    rng, clips = np.random.default_rng(0), len(held_out.labels_K)
    p = np.concatenate([held_out.probabilities_KC, test.probabilities_KC])
    labels = np.concatenate([held_out.labels_K, test.labels_K])
    scores = scores_of(p, labels)
    rank = conformal_rank(clips, sets.coverage)
    found = []
    for _ in range(RE_SPLITS):
        order = rng.permutation(len(labels))
        rest = order[clips:]
        threshold = np.sort(scores[order[:clips]])[rank - 1]
        inside = in_set(p[rest], np.full(len(rest), threshold))
        found.append(inside[np.arange(len(rest)), labels[rest]].mean())
    return float(np.mean(found))


def by_family(run: TrainedRun, sets: PredictionSets, data: PreparedData, which: Which) -> None:
    """Print coverage and sizes on test clips under each family, means over its conditions."""
    listed = conditions(run.config.inputs, which)
    suite = [c for c in listed if c.group not in ("conflict", *(("clean",) if which == "development" else ()))]
    test = data.splits["test"].rows
    encoded = encode_conditions(run.encoders, run.config.inputs, test, suite, run.quality, seed=run.config.seed)
    rows: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for condition in suite:
        name = condition.group if condition.group in ("clean", "absent") else ""
        for family in [name] if name else ["+".join(sorted(condition.families)) or condition.group]:
            rows[family].append(judged(run, sets, answers_to(run, encoded, condition)))
    print(
        f"\n{which} families\n\n| family | conditions | accuracy | covered | labels in a set |\n|---|---|---|---|---|"
    )
    for family, found in rows.items():
        accuracy, covered, size = np.mean(found, axis=0)
        print(f"| {family} | {len(found)} | {accuracy:.1%} | {covered:.3f} | {size:.2f} |")


def judged(run: TrainedRun, sets: PredictionSets, answers: Answers) -> tuple[float, float, float]:
    """Return accuracy, coverage and mean size of the sets, over the clips with an answer, each by its own pattern."""
    names = [modality.name for modality in run.modalities]
    there = answers.answered_N
    present_NM = answers.votes.present_NH[there, : len(names)]
    patterns = [tuple(n for n, ok in zip(names, row, strict=True) if ok) for row in present_NM]
    p, labels = answers.fused.probabilities_BC[there], answers.votes.labels_N[there]
    inside = in_set(p, np.array([sets.thresholds[pattern] for pattern in patterns]))
    covered = inside[np.arange(len(labels)), labels]
    return float((p.argmax(axis=1) == labels).mean()), float(covered.mean()), float(inside.sum(axis=1).mean())


def cost(run: TrainedRun, sets: PredictionSets) -> None:
    """Print the processor time of one answer's set, the least of five rounds."""
    bundle = Bundle(
        name="timed",
        version=1,
        labels=run.labels,
        clip_s=run.clip_s,
        encoders=tuple(Encoder(modality=m, features=run.config.encoders[m.name].width) for m in run.modalities),
        fusion=run.fusion,
        created="",
        dimml_version="",
        prediction_sets=sets,
    )
    p = np.random.default_rng(0).dirichlet(np.ones(len(run.labels)), 1).astype(np.float32)
    statuses = {m.name: [OK] for m in run.modalities}
    features = {m.name: np.zeros((1, bundle.encoder(m.name).features), np.float32) for m in run.modalities}
    rounds, times = 2000, []
    for _ in range(5):
        began = time.process_time()
        for _ in range(rounds):
            found = answer_sets(bundle, p, statuses, features)
            assert found is not None
            found.labels(0, run.labels, p[0])
        times.append((time.process_time() - began) / rounds)
    print(f"\nprocessor time of a set: {min(times) * 1e6:.0f} µs, of {len(run.labels)} labels")


if __name__ == "__main__":
    main()
