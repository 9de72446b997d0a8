"""What reduced precision costs on damaged clips: accuracy under the corruption suite, of a run's two versions in turn.

    dimml export runs/mine --repository bundles --precision int8
    python benchmarks/precision_under_damage.py runs/mine --repository bundles --families seen

The encoders are the files that a server loads, run by ONNX Runtime on the processor. The fusion of the float version is
the run's; that of int8 is fitted again as the export did it, and held against what the export wrote. Every damaged row
is made once more for the second version, with the same seeds, so that both are judged on the same rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import nn

from dimml.bundle import Bundle
from dimml.repository import load_bundle, versions
from dimml_export.precision.session_encoder import SessionEncoder
from dimml_training.config.corruption_suite import Condition, conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.scoring import answers_to
from dimml_training.data.loader import ClipRows
from dimml_training.fusion_selection.choose import spread
from dimml_training.loop.other_encoders import refitted, run_clips
from dimml_training.run.directory import TrainedRun, load_run

#: Most points of mean accuracy that reduced precision may lose.
BOUND = 1.0


def main() -> None:
    """Print accuracies of heads and answer by family, in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--bundle", help="by default the run's name")
    parser.add_argument("--version", type=int, help="in reduced precision; by default the newest that is")
    parser.add_argument("--families", default="seen", help="as of `dimml evaluate` (seen)")
    parser.add_argument("--clips", type=int, default=1000, help="most test clips (1000)")
    parser.add_argument("--cache-dir", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    run = load_run(given.run)
    reduced, before = found_versions(given.repository, given.bundle or run.config.name, given.version)
    record = reduced.reduced_precision
    assert record is not None
    splits, _ = run_clips(given.run, run, cache_dir=given.cache_dir)
    fusion, parameters = run.fusion, run.fusion_parameters
    encoders = loaded(given.repository, reduced)
    if reduced.precision == "int8":
        most = record.calibration_clips
        fusion, parameters = refitted(
            run, encoders, train=splits["train"], validation=splits["validation"], most_clips=most
        )
    if fusion != reduced.fusion:
        raise SystemExit(f"version {reduced.version} has another fusion than this run's: was the run trained again?")
    before_run = replace(run, encoders=loaded(given.repository, before))
    after_run = replace(run, encoders=encoders, fusion=fusion, fusion_parameters=parameters)

    suite = [c for c in conditions(run.modalities, given.families) if c.group != "conflict"]
    clips = spread(splits["test"], given.clips)
    print(f"{reduced.name}, seed {run.config.seed}, {len(clips)} test clips, {len(suite)} conditions\n")
    found, other = accuracies(before_run, clips, suite), accuracies(after_run, clips, suite)
    print(f"| family | conditions | answer in {before.precision} | {reduced.precision} | difference, points |")
    print("|---|---|---|---|---|")
    for family, values in found.items():
        mean, after = statistics.mean(values), statistics.mean(other[family])
        print(f"| {family} | {len(values)} | {mean:.1%} | {after:.1%} | {100 * (after - mean):+.2f} |")
    damaged = [family for family in found if family not in ("clean", "absent")]
    means = [statistics.mean(x for family in damaged for x in one[family]) for one in (found, other)]
    lost = 100 * (means[0] - means[1])
    print(f"\nmean of damaged conditions: {means[0]:.2%} and {means[1]:.2%}, {-lost:+.2f} points", end="")
    print(f" ({'within' if lost <= BOUND else 'MISSED'}: at most {BOUND:g} lost)")


def found_versions(repository: Path, name: str, version: int | None) -> tuple[Bundle, Bundle]:
    """Return the version in reduced precision and the float one that it was made from."""
    for number in sorted(versions(repository, name), reverse=True) if version is None else [version]:
        bundle = load_bundle(repository, name, number)
        if bundle.reduced_precision is not None:
            return bundle, load_bundle(repository, name, bundle.reduced_precision.float_version)
    raise SystemExit(f"{name} in {repository} has no version in reduced precision: dimml export --precision int8")


def loaded(repository: Path, bundle: Bundle) -> dict[str, nn.Module]:
    """Return the encoders of a version by modality, as sessions."""
    files = {m.name: bundle.model_file(repository, bundle.encoder_model(m.name)) for m in bundle.modalities}
    return {name: SessionEncoder(onnx.load(file)) for name, file in files.items()}


def accuracies(run: TrainedRun, clips: ClipRows, suite: Sequence[Condition]) -> dict[str, list[float]]:
    """Return the answer's accuracy under each condition, by family."""
    encoded = encode_conditions(run.encoders, run.modalities, clips, suite, run.quality, seed=run.config.seed)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for condition in suite:
        answers = answers_to(run, encoded, condition)
        family = "+".join(sorted(condition.families)) or condition.group
        found[family].append(float(answers.right()[answers.scored_N].mean()))
    return found


if __name__ == "__main__":
    main()
