"""A finished run with other encoders in the place of its own: its clips, its answers, and a fusion fitted to them.

An export in reduced precision asks for these. The encoders are any modules that map ``[B, *modality.shape]`` to
features and logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dimml.fusion import Fused, FusionParameters, FusionSpec
from dimml.system.files import StrPath
from dimml_training.config import Split
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import Progress, prepare
from dimml_training.evaluation.heads import HeadLogits, fused_answer, head_logits
from dimml_training.fusion_selection.choose import spread
from dimml_training.fusion_selection.refit_rows import choice_rows, refit_rows
from dimml_training.run.directory import TrainedRun, read_data_digest


def run_clips(
    folder: Path, run: TrainedRun, *, cache_dir: StrPath | None = None, decoding: Progress | None = None
) -> tuple[dict[Split, ClipRows], bool]:
    """Read the run's clips of every split from the cache, or decode them; and whether they are those of its training.

    ``cache_dir`` is by default that of ``dimml train``. Raises DataError for problems of the data.
    """
    data = prepare(run.config, cache_dir or default_cache_dir(), labels=run.labels, progress=decoding)
    noted = read_data_digest(folder)
    return {split: found.rows for split, found in data.splits.items()}, noted in (None, data.digest)


def answers_of(
    run: TrainedRun,
    encoders: Mapping[str, nn.Module],
    clips: ClipRows,
    fusion: FusionSpec,
    parameters: FusionParameters,
) -> tuple[HeadLogits, Fused]:
    """Votes of all heads and the answers, by these encoders, the run's fused head and the given fusion."""
    votes = head_logits(encoders, run.voting_fused_head, run.modalities, clips, run.quality)
    return votes, fused_answer(votes, fusion, parameters)


def refitted(
    run: TrainedRun,
    encoders: Mapping[str, nn.Module],
    *,
    train: ClipRows,
    validation: ClipRows,
    most_clips: int,
    progress: Progress | None = None,
) -> tuple[FusionSpec, FusionParameters]:
    """Fit what the run's fusion learned from its encoders' outputs again, for these encoders.

    A fusion that the config fixes learned nothing and is returned as it is. At most ``most_clips`` validation clips are
    encoded under each condition. ``progress`` is called with the number of encodings done and the total.
    """
    if not run.fusion_report:
        return run.fusion, run.fusion_parameters
    config = run.config
    clips = spread(validation, min(most_clips, config.certainty.clips))
    rows, geometry = choice_rows(run, encoders, train, clips, progress=progress)
    weighted = run.fusion_report.get("regret_weighted") is True
    return refit_rows(rows, geometry, run.fusion, config.certainty, seed=config.seed, regret_weighted=weighted)


__all__ = ["answers_of", "refitted", "run_clips", "spread"]
