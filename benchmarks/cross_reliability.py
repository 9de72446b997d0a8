"""What a reliability that looks at the other heads is worth: families left out by pairs, on validation clips alone.

    python benchmarks/cross_reliability.py RUN ... [--cache-dir DIR] [--only-choice]

For each finished run, reliability is learned from its validation clips under the seen families in five ways, and
scored as the choice of a fusion does: on clips and families that it was not learned from. No test clip is read.
With ``--only-choice``, just what the choice itself takes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from dimml.fusion import Certainty, FusionSpec
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.fusion_selection.candidate_scores import CandidateScorer, CandidateScores
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, choice_conditions, spread
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.cross_fit import cross_fit, head_geometry
from dimml_training.fusion_selection.search import choose_fusion, head_temperatures, one_line
from dimml_training.loop.other_encoders import run_clips
from dimml_training.run.directory import load_run

#: Name, certainty, whether composed conditions are learned from, whether the fit is regret-weighted.
WAYS: tuple[tuple[str, Certainty, bool, bool], ...] = (
    ("nine statistics", "reliability", False, False),
    ("nine statistics, composed rows too", "reliability", True, False),
    ("all heads in view", "cross_reliability", False, False),
    ("all heads in view, composed rows too", "cross_reliability", True, False),
    ("the same, regret-weighted", "cross_reliability", True, True),
)


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--clips", type=int, default=120, help="most validation clips")
    parser.add_argument("--only-choice", action="store_true", help="only choose, and time it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for folder in given.runs:
        measure(folder, given.cache_dir, given.clips, only_choice=given.only_choice)


def measure(folder: Path, cache_dir: Path | None, clips: int, *, only_choice: bool) -> None:
    """Print the scores of every way to learn reliability on one run's validation clips, and what is chosen."""
    run = load_run(folder)
    default = type(run.config.certainty)()
    config = run.config.model_copy(update={"fusion": None, "certainty": default})
    splits, _ = run_clips(folder, run, cache_dir=cache_dir)
    suite = choice_conditions(config)

    began = time.process_time()
    validation = encode_conditions(
        run.encoders, config.inputs, spread(splits["validation"], clips), suite, config.quality, seed=config.seed
    )
    train = encode_conditions(
        run.encoders,
        config.inputs,
        spread(splits["train"], MOST_TRAIN_CLIPS),
        suite[:1],
        config.quality,
        seed=config.seed,
    )
    encoding_s = time.process_time() - began
    began = time.process_time()
    chosen = choose_fusion(validation, train, run.fused_head, suite, default, seed=config.seed)
    choosing_s = time.process_time() - began

    clips_used, candidates = (chosen.report[name] for name in ("validation_clips", "candidates"))
    print(f"\n{folder.name}: seed {config.seed}, {clips_used} validation clips, {candidates} candidates")
    print(f"chosen: {one_line(chosen)}; regret-weighted: {chosen.report['regret_weighted']}")
    print(f"processor seconds, one thread: encoding {encoding_s:.1f}, choosing {choosing_s:.1f}", flush=True)
    if only_choice:
        return

    rows = rows_of(validation, run.fused_head, suite, draws=default.draws)
    judged, judged_R = rows.judged(), ~rows.learned_only()
    geometry = head_geometry(rows_of(train, run.fused_head, suite[:1], draws=1))
    temperatures = head_temperatures(judged)
    print(f"{len(judged.conditions)} conditions judged, {len(rows.conditions) - len(judged.conditions)} composed")
    print("| learned | accuracy | mean regret | negative regret | CVaR20 | clean | objective | best pooling |")
    print("|---|---|---|---|---|---|---|---|")
    for name, certainty, composed, weighted in WAYS:
        fit = cross_fit(
            rows if composed else judged,
            geometry,
            temperatures,
            folds=default.folds,
            seed=config.seed,
            cross=certainty == "cross_reliability",
            regret_weighted=weighted,
        )
        held_out_RH = fit.held_out_RH[judged_R] if composed else fit.held_out_RH
        scorer = CandidateScorer(judged, {(certainty, True): held_out_RH})
        specs = [
            FusionSpec(
                certainty=certainty,
                pooling=pooling,
                temperature=temperature,
                fused_head=True,
                head_temperatures=temperatures,
            )
            for pooling in default.poolings
            for temperature in (*default.temperatures, *([None] if pooling == "product" else []))
        ]
        _print(name, max((scorer.score(spec) for spec in specs), key=lambda scores: scores.objective))
    scorer = CandidateScorer(judged, {})
    average = FusionSpec(fused_head=True, temperature=None, pooling="probabilities", head_temperatures=temperatures)
    _print("nothing: average of probabilities", scorer.score(average))


def _print(name: str, scores: CandidateScores) -> None:
    figures = (scores.accuracy, scores.regret, scores.below, scores.tail_regret, scores.clean, scores.objective)
    temperature = "equal weights" if scores.spec.temperature is None else f"T {scores.spec.temperature:g}"
    print(f"| {name} | {' | '.join(f'{100 * x:.2f}' for x in figures)} | {scores.spec.pooling}, {temperature} |")


if __name__ == "__main__":
    main()
