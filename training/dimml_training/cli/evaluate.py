"""``dimml evaluate``: metrics of a run on a split, clean and under corruptions; heavy imports are inside."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimml.errors import ConfigurationError, SetupError
from dimml_training.cli.console import CacheDir, progress_bar, show_metrics

if TYPE_CHECKING:
    from dimml_training.config import Split
    from dimml_training.data.manifest import Clip
    from dimml_training.evaluation.heads import HeadLogits
    from dimml_training.run.directory import TrainedRun

#: Folder whose ``development.log`` counts evaluations on development families, relative to the repository's root.
RESULTS = Path("docs/results")
#: The split whose evaluations on development families are counted, and whose metrics are in a report.
TEST = "test"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished training.")],
    *,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    noise_db: Annotated[
        list[float] | None,
        typer.Option(help="Also score with white noise on the sound at this signal-to-noise ratio; repeatable."),
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also score under the corruption suite, docs/robustness.md.")
    ] = False,
    families: Annotated[
        str, typer.Option(help="Families of the suite: seen (by training and selection), development, or all.")
    ] = "all",
    detail: Annotated[bool, typer.Option("--detail", help="Every severity of the suite, for severity curves.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for severity curves, one SVG per modality.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose development.log counts evaluations on development families; docs/results, if present."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of noise and corruptions.")] = 0,
    cache_dir: CacheDir = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write one CSV row per clean clip: the answers that a server must give.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Score a trained run on one of its splits, clean and under corruptions."""
    from dimml_training.config import SPLITS
    from dimml_training.config.corruption_suite import conditions, outside_means
    from dimml_training.corruptions.encoding import encode_conditions
    from dimml_training.corruptions.plots import write_severity_curves
    from dimml_training.corruptions.scoring import score
    from dimml_training.corruptions.table import show_conditions
    from dimml_training.data.cache import default_cache_dir
    from dimml_training.data.prepare import prepare
    from dimml_training.evaluation.heads import figures, fused_answer, head_logits
    from dimml_training.run.directory import load_run

    chosen = next((known for known in SPLITS if known == split), None)
    if chosen is None:
        raise ConfigurationError(f"--split {split}: choose one of {', '.join(SPLITS)}", field="--split")
    # The development families were called unseen once.
    asked = "development" if families == "unseen" else families
    which = next((known for known in ("seen", "development", "all") if known == asked), None)
    if which is None:
        raise ConfigurationError(f"--families {families}: choose one of seen, development, all", field="--families")
    if not corruptions and (detail or plots is not None or which != "all"):
        raise ConfigurationError("--families, --detail and --plots go with --corruptions", field="--corruptions")
    trained = load_run(run)
    if noise_db and not all(math.isfinite(level) for level in noise_db):
        raise ConfigurationError("--noise-db takes decibels, such as 0 or -10", field="--noise-db")
    if noise_db and not any(m.track == "audio" for m in trained.modalities):
        raise ConfigurationError(f"--noise-db: {run} has no sound to add noise to", field="--noise-db")
    if plots is not None:
        _make_folder(plots, "--plots")
    # Which modality is better under a condition is determined on validation clips.
    splits: list[Split] = list(dict.fromkeys([chosen, "validation"])) if corruptions else [chosen]
    with progress_bar("decoding clips") as progress:
        data = prepare(
            trained.config, cache_dir or default_cache_dir(), splits=splits, labels=trained.labels, progress=progress
        )
    clips = data.splits[chosen]
    # Only training reads the files of all splits, so warnings about leakage between them come from the run.
    warnings = list(dict.fromkeys([*trained.training.get("warnings", ()), *data.warnings]))
    answer: dict[str, Any] = {"run": str(run), "split": split, "warnings": warnings, "conditions": {}}
    for noise in (None, *(noise_db or ())):
        votes = head_logits(
            trained.encoders,
            trained.voting_fused_head,
            trained.modalities,
            clips.rows,
            trained.quality,
            joint_head=trained.joint_head,
            own_heads=trained.own_heads,
            noise_db=noise,
            seed=seed,
        )
        answers = fused_answer(votes, trained.fusion, trained.fusion_parameters)
        found = figures(votes, answers, trained.labels)
        answer["conditions"]["clean" if noise is None else f"white_{noise:g}db"] = found
        if noise is None and predictions is not None:
            _write_predictions(predictions, clips.clips, votes, answers, trained)
    if corruptions:
        suite = outside_means(conditions(trained.modalities, which, detail=detail), trained.config.compare.contained)
        encoded = {}
        for of in splits:
            with progress_bar(f"corrupting {of} clips") as progress:
                encoded[of] = encode_conditions(
                    trained.encoders,
                    trained.modalities,
                    data.splits[of].rows,
                    suite,
                    trained.quality,
                    seed=seed,
                    progress=progress,
                )
        # Counted before the metrics exist: if counting fails, nothing has been seen.
        looks = _counted(trained, results) if chosen == TEST and which != "seen" else None
        answer["corruptions"] = score(trained, encoded[chosen], encoded["validation"], suite)
        if chosen == TEST:
            of_run = {"data": data.digest, "fusion": trained.fusion.model_dump(mode="json")}
            _keep(run, {"split": split, "families": which, "seed": seed, **of_run, **answer["corruptions"]})
            if which != "seen":
                answer["looks_at_development"] = looks
        if plots is not None:
            drawn = write_severity_curves(suite, answer["corruptions"]["conditions"], plots)
            answer["plots"] = [str(path) for path in drawn]
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for condition, found in answer["conditions"].items():
        show_metrics(f"{split}, {condition}, {found['clips']} clips", found, trained.labels)
    if corruptions:
        show_conditions(f"{split} under corruptions", answer["corruptions"])
    if answer.get("looks_at_development") is not None:
        typer.echo(f"looks at development families on test clips so far: {answer['looks_at_development']}")
    for path in answer.get("plots", ()):
        typer.echo(f"written: {path}", err=True)


def _make_folder(folder: Path, option: str) -> None:
    """Create it before the work that fills it, which takes long."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {folder}: {error.strerror}", field=option) from error


def _keep(run: Path, found: dict[str, Any]) -> None:
    """Save the suite's metrics in the run directory, unless fuller ones are there, and write its report again."""
    from dimml.system.files import write_atomically
    from dimml_training.report.page import write_report
    from dimml_training.report.reading import CORRUPTIONS_FILE

    path = run / CORRUPTIONS_FILE
    if _holds_more(path, found):
        typer.echo(f"{path} holds more conditions of the same clips: it and the report stay unchanged", err=True)
        return
    try:
        write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
    except OSError as error:
        typer.echo(f"warning: cannot write {path}, the report will lack it: {error.strerror}", err=True)
        return
    try:
        write_report(run)
    except SetupError as error:
        # A warning only: the metrics, which took long, are saved.
        typer.echo(f"warning: no report: {error}", err=True)


def _holds_more(path: Path, found: dict[str, Any]) -> bool:
    """Whether a file of metrics has all conditions of ``found`` and more, of the same clips, draws and fusion."""
    try:
        kept = json.loads(path.read_bytes())
        alike = all(kept[name] == found[name] for name in ("split", "seed", "data", "fusion"))
        return bool(alike and kept["conditions"].keys() > found["conditions"].keys())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _counted(trained: TrainedRun, results: Path | None) -> int | None:
    """Log this evaluation on development families; return how many there have been, or None if no log is kept."""
    from dimml_training.compare.development_log import log_development
    from dimml_training.compare.plan import digest

    if results is None and not RESULTS.is_dir():
        typer.echo(
            f"warning: this look at development families is not counted, because there is no {RESULTS} here; name a "
            "folder for development.log with --results",
            err=True,
        )
        return None
    config_hash = digest(trained.config.model_dump(mode="json"))
    return log_development(results or RESULTS, trained.name, config_hash, "evaluate")


def _write_predictions(path: Path, clips: list[Clip], votes: HeadLogits, fused: Any, trained: TrainedRun) -> None:
    from dimml_training.evaluation.heads import head_probabilities

    own = head_probabilities(votes)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            media, labels = [m.name for m in trained.modalities], trained.labels
            writer.writerow(
                [
                    *(f"path_{name}" for name in media),
                    *("start_s", "end_s", "label", "predicted"),
                    *(f"probability_{label}" for label in labels),
                    *(f"{what}_{head}" for head in votes.heads for what in ("label", "probability", "weight")),
                ]
            )
            for row, clip in enumerate(clips):
                heads = []
                for index in range(len(votes.heads)):
                    if not votes.of_head(index)[row]:
                        heads += ["", "", ""]
                        continue
                    vote = int(own[row, index].argmax())
                    heads += [labels[vote], f"{own[row, index, vote]:.6f}", f"{fused.weights_BH[row, index]:.6f}"]
                writer.writerow(
                    [
                        *(str(clip.media.get(name, "")) for name in media),
                        # As labelled: the bundle adds the margin where this table is scored.
                        *map(str, clip.labelled_s or ("", "")),
                        clip.label,
                        labels[int(fused.logits_BC[row].argmax())],
                        *(f"{p:.6f}" for p in fused.probabilities_BC[row]),
                        *heads,
                    ]
                )
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--predictions") from error
