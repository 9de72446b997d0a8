"""What kin of real damage is worth to a learned reliability, on validation clips alone.

    python benchmarks/kin.py RUN ... [--cache-dir DIR] [--clips N] [--seeds 0,1,2]

For each finished run, reliability is learned from validation clips under the seen families with kin and without, and
the fusion is chosen as always. Scored are the seen families, left out by pairs, and the development families of
validation clips of another fold; the latter once more by fits that learned from no kin near to the family. Kin of the
seen families is left out with them. Intervals are of a bootstrap over clips, of the difference to no kin.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from dimml.fusion import Certainty, FusionParameters, FusionSpec, fuse
from dimml_training.config import TrainConfig
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.config.corruption_suite import Condition, conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.fusion_selection.candidate_scores import CandidateScorer, tail_mean
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, choice_conditions, spread
from dimml_training.fusion_selection.condition_rows import ConditionRows, rows_of
from dimml_training.fusion_selection.cross_fit import clip_folds, cross_fit, head_geometry, regret_prices, row_weights
from dimml_training.fusion_selection.family_pairs import has_answer
from dimml_training.fusion_selection.reliability_fit import Geometry, ReliabilityFits
from dimml_training.fusion_selection.search import ChosenFusion, choose_fusion, head_temperatures, one_line
from dimml_training.loop.other_encoders import run_clips
from dimml_training.run.directory import load_run

#: By development family: the kin families that resemble it.
NEAR: Final[Mapping[str, tuple[str, ...]]] = {
    "pink": ("coloured_noise",),
    "voices": ("training_voices",),
    "reverberation": ("room",),
    "clipping": ("overdrive",),
    "lower_part": ("sheet", "thing", "collage"),
    "patch": ("sheet", "thing", "collage"),
    "tilt": ("warp",),
    "low_bitrate": ("jpeg",),
    "frozen_frames": ("stutter",),
    "jitter": ("wander", "slow_clock"),
    "saturation": ("squashed",),
    "stuck": ("slow_clock", "stray"),
    "spikes": ("wander",),
}
RESAMPLES: Final = 2000
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """Per condition and clip, mean over draws: how often the answer was right, ``[K, N]``, and each modality."""

    right_KN: FloatArray
    modality_MKN: FloatArray

    def figures(self, clips: npt.NDArray[np.int64] | None = None) -> tuple[float, float, float, float]:
        """Accuracy, mean regret, CVaR20 and worst regret over the conditions, in percent and points."""
        which = np.arange(self.right_KN.shape[1]) if clips is None else clips
        accuracy_K = self.right_KN[:, which].mean(axis=1)
        regret_K = accuracy_K - self.modality_MKN[:, :, which].mean(axis=2).max(axis=0)
        found = (accuracy_K.mean(), regret_K.mean(), tail_mean(regret_K), regret_K.min())
        return tuple(100 * float(value) for value in found)  # type: ignore[return-value]


def main() -> None:
    """Print tables for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--clips", type=int, default=400, help="most validation clips")
    parser.add_argument("--seeds", default="0", help="seeds of damage, folds and fits, comma-separated")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for folder in given.runs:
        for seed in map(int, given.seeds.split(",")):
            measure(folder, given.cache_dir, given.clips, seed)


def measure(folder: Path, cache_dir: Path | None, clips: int, seed: int) -> None:
    """Print the scores of one run with kin and without, for one seed of damage, folds and fits."""
    run = load_run(folder)
    splits, _ = run_clips(folder, run, cache_dir=cache_dir)
    few, known = spread(splits["validation"], clips), spread(splits["train"], MOST_TRAIN_CLIPS)
    certainty = CertaintyConfig(clips=clips)
    without, with_kin = (
        run.config.model_copy(
            update={"fusion": None, "certainty": certainty.model_copy(update={"kin": kin}), "seed": seed}
        )
        for kin in (False, True)
    )
    suite = conditions(run.modalities, "all")
    development = [replace(c, draws=min(c.draws, certainty.draws)) for c in suite if not c.seen and c.in_means]
    contained = set(run.config.compare.contained)
    development = [c for c in development if not c.families & contained]
    every = list({c.name: c for c in [*choice_conditions(with_kin), *development]}.values())
    began = time.process_time()
    encoded = encode_conditions(
        run.encoders, run.modalities, few, every, run.quality, seed=seed, damage=WithKin(splits["train"])
    )
    clean = suite[:1]
    train = encode_conditions(run.encoders, run.modalities, known, clean, run.quality, seed=seed)
    print(f"\n## {folder.name}, seed {seed}: {len(few)} validation clips, {len(development)} development conditions")
    print(f"encoded in {time.process_time() - began:.0f} s of processor time")
    geometry = head_geometry(rows_of(train, run.fused_head, clean, draws=1))
    baseline: dict[str, Answered] = {}
    for name, config in (("no kin", without), ("kin", with_kin)):
        began = time.process_time()
        of_choice = choice_conditions(config)
        chosen = choose_fusion(encoded, train, run.fused_head, of_choice, config.certainty, seed=seed)
        seconds = time.process_time() - began
        print(f"{name}: {one_line(chosen)}; chosen in {seconds:.0f} s; {_best(chosen)}")
        rows = rows_of(encoded, run.fused_head, of_choice, draws=certainty.draws)
        later = rows_of(encoded, run.fused_head, [clean[0], *development], draws=certainty.draws)
        for key, answered in arms(config, rows, later, geometry, chosen).items():
            _print(
                f"{name}, {key}", answered, baseline.setdefault(key.removesuffix(", next of kin left out"), answered)
            )


def arms(
    config: TrainConfig,
    rows: ConditionRows,
    later: ConditionRows,
    geometry: Sequence[Geometry],
    chosen: ChosenFusion,
) -> dict[str, Answered]:
    """Answers under left-out seen families and development ones, by both learned certainties and by what was chosen."""
    judged = rows.judged()
    temperatures = head_temperatures(judged)
    found: dict[str, Answered] = {}
    specs: dict[str, FusionSpec] = {
        certainty: FusionSpec(
            certainty=certainty, pooling="product", temperature=None, fused_head=True, head_temperatures=temperatures
        )
        for certainty in _LEARNED
    }
    specs["the choice"] = chosen.spec
    weighted = bool(chosen.report["regret_weighted"])
    for name, spec in specs.items():
        if not spec.learned:
            found[f"{name}: left out"] = answered(judged, _right(judged, spec, None))
            found[f"{name}: development"] = answered(later, _right(later, spec, None))
            continue
        cross = spec.certainty == "cross_reliability"
        learned = rows if cross else rows.without_composed()
        own = learned if spec.fused_head else learned.without_fused_head()
        given = (geometry[: len(own.heads)], temperatures[: len(own.heads)])
        fit = cross_fit(
            own, *given, folds=config.certainty.folds, seed=config.seed, cross=cross, regret_weighted=weighted and cross
        )
        held_RH = fit.held_out_RH[~own.learned_only()]
        logits = CandidateScorer(judged, {(spec.certainty, spec.fused_head): held_RH}).answers(spec).logits_BC
        found[f"{name}: left out"] = answered(judged, logits.argmax(axis=1) == judged.labels_R)
        for suffix, far in (("", False), (", next of kin left out", True)):
            if far and not config.certainty.kin:
                continue
            right_R = _development(config, own, later, given, spec, far=far, weighted=weighted and cross)
            found[f"{name}: development{suffix}"] = answered(later, right_R)
    return found


_LEARNED: tuple[Certainty, ...] = ("reliability", "cross_reliability")


def _development(
    config: TrainConfig,
    learned: ConditionRows,
    later: ConditionRows,
    given: tuple[Sequence[Geometry], Sequence[float]],
    spec: FusionSpec,
    *,
    far: bool,
    weighted: bool,
) -> npt.NDArray[np.bool_]:
    """Which answers to development rows are right, ``[R]``, by fits that saw none of the clip; ``far``: nor kin."""
    folds = config.certainty.folds
    fold_R, base_R = clip_folds(learned, folds, config.seed), row_weights(learned)
    fold_of_clip = dict(zip(learned.clip_R.tolist(), fold_R.tolist(), strict=True))
    development = [c for c in later.conditions if c.group != "clean"]
    groups: dict[frozenset[str], list[str]] = {}
    for c in development:
        away = frozenset(kin for family in c.families for kin in NEAR[family]) if far else frozenset()
        groups.setdefault(away, []).append(c.name)
    weights, place = [], {}
    for away, names in groups.items():
        own = np.array([bool(_names(c) & away) for c in learned.conditions])[learned.condition_R]
        for fold in range(folds):
            place |= {(name, fold): len(weights) for name in names}
            weights.append(base_R * (fold_R != fold) * ~own)
    prices_R = regret_prices(learned) if weighted else None
    fits = ReliabilityFits(
        learned,
        given[0],
        np.stack(weights),
        given[1],
        seed=config.seed,
        cross=spec.certainty == "cross_reliability",
        prices_R=prices_R,
    )
    fits.fit_own()
    fits.fit_pooled()
    right_R = np.zeros(len(later.labels_R), np.bool_)
    fit_R = np.array(
        [
            place.get((later.conditions[c].name, fold_of_clip[clip]), -1)
            for c, clip in zip(later.condition_R.tolist(), later.clip_R.tolist(), strict=True)
        ]
    )
    for index in range(len(weights)):
        which = fit_R == index
        right_R[which] = _right(later.take(which), spec, FusionParameters(fits.parameters(index)))
    return right_R


def _names(condition: Condition) -> frozenset[str]:
    """Kin families of a condition, without the seen ones that they resemble."""
    return frozenset(change.family for change in condition.by_modality.values() if hasattr(change, "family"))


def _right(rows: ConditionRows, spec: FusionSpec, parameters: FusionParameters | None) -> npt.NDArray[np.bool_]:
    own = rows if spec.fused_head else rows.without_fused_head()
    if parameters is None:
        fused = fuse(own.logits_RHC, own.present_RH, spec)
    else:
        fused = fuse(own.logits_RHC, own.present_RH, spec, parameters, own.features)
    return np.asarray(fused.logits_BC.argmax(axis=1) == rows.labels_R)


def answered(rows: ConditionRows, right_R: npt.NDArray[np.bool_]) -> Answered:
    """Order right answers by condition and clip, of the conditions in the means that leave an answer."""
    wanted = [index for index, c in enumerate(rows.conditions) if c.in_means and has_answer(c)]
    clips, place_R = np.unique(rows.clip_R, return_inverse=True)

    def table(values_R: npt.NDArray[np.bool_]) -> FloatArray:
        flat_R = rows.condition_R * len(clips) + place_R
        size = len(rows.conditions) * len(clips)
        total, count = np.bincount(flat_R, weights=values_R, minlength=size), np.bincount(flat_R, minlength=size)
        return np.asarray((total / np.maximum(count, 1)).reshape(-1, len(clips))[wanted])

    heads_RH = rows.heads_right()
    return Answered(table(right_R), np.stack([table(heads_RH[:, m]) for m in range(rows.modalities)]))


def _print(name: str, found: Answered, baseline: Answered) -> None:
    accuracy, regret, tail, worst = found.figures()
    line = f"| {name} | {accuracy:.2f} | {regret:+.2f} | {tail:+.2f} | {worst:+.2f} |"
    if found is not baseline:
        rng, clips = np.random.default_rng(0), found.right_KN.shape[1]
        drawn = [rng.integers(clips, size=clips) for _ in range(RESAMPLES)]
        differences = np.array([np.subtract(found.figures(d), baseline.figures(d)) for d in drawn])
        low, high = np.quantile(differences, (0.025, 0.975), axis=0)
        was = baseline.figures()
        line += f" {regret - was[1]:+.2f} ({low[1]:+.2f} to {high[1]:+.2f}) |"
        line += f" {tail - was[2]:+.2f} ({low[2]:+.2f} to {high[2]:+.2f}) |"
    print(line, flush=True)


def _best(chosen: ChosenFusion) -> str:
    best = {k: v["objective"] for k, v in chosen.report["instead_of"].items() if k.startswith("best with")}
    return f"objective {chosen.report['chosen']['objective']}, {best}"


if __name__ == "__main__":
    main()
