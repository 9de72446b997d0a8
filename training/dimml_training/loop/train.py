"""One training run from config to run directory: data, stage 1, stage 2, choice of the fusion, final metrics."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from dimml import __version__
from dimml.errors import ConfigurationError, SetupError
from dimml.fusion import PAPER
from dimml.media.decoders.version import DECODER_VERSION
from dimml.system.files import StrPath, exclusive_lock
from dimml.system.outbound import set_quiet_defaults
from dimml_training.config import SPLITS, Split, TrainConfig
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import PreparedData, Progress, prepare, quality_report
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.detached.fused_head import train_fused_head
from dimml_training.distributed import Ranks, ranks_of_torchrun
from dimml_training.evaluation.heads import figures, fused_answer, head_logits
from dimml_training.fusion_selection.choose import choose_on
from dimml_training.fusion_selection.search import one_line
from dimml_training.joint.encoders import JointEncoders
from dimml_training.lightning.encoder_module import EncoderTraining, History
from dimml_training.lightning.trainer import check_shared, training_device
from dimml_training.loop.epoch_log import EpochLog, epoch_log
from dimml_training.loop.fit_encoders import fit_stage1, idle_pairs
from dimml_training.models.encoder import build_encoder, resolved_encoder
from dimml_training.run.directory import (
    CONFIG_FILE,
    RUN_FILE,
    read_config,
    read_data_digest,
    read_decoder_version,
    write_config,
    write_data_digest,
    write_decoder_version,
    write_run,
)
from dimml_training.run.fusion import without_fused_head, write_fusion
from dimml_training.run.starting import load_start, start_record
from dimml_training.run.votes import write_votes

#: Number of validation clips kept in the run, so that an export can be checked on real clips without the data.
SAMPLES = 16


def train(
    config: TrainConfig,
    out: StrPath,
    *,
    cache_dir: StrPath | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    bar: bool = False,
) -> dict[str, Any]:
    """Train, score the test split once, and write the run directory; return the metrics of validation and test.

    Under ``torchrun`` every process calls this, and they share stage 1; all but the first return after it without
    writing, with empty metrics.

    Decoded clips are kept in ``cache_dir``, by default that of ``dimml train``.
    ``progress`` is called while clips are decoded, ``tell`` with lines about the training; with ``bar``, Lightning
    shows its own progress bar. Raises ConfigurationError if ``out`` holds another run, DataError for problems of the
    data, SetupError for all others.
    """
    out, cache_dir = Path(out), Path(cache_dir or default_cache_dir())
    began = time.monotonic()
    set_quiet_defaults()
    config = _with_architectures(config)
    ranks = ranks_of_torchrun()
    device = training_device(config.compute, ranks)
    check_shared(config, ranks)
    if ranks.first:
        _claim(out, config, resume=resume)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if not resume:
        # Built once to find errors before clips are decoded and before the folder holds a run. Published weights are
        # not loaded until training.
        built = {m.input.name: build_encoder(m.input, m.encoder, classes=2, weights=False) for m in config.modalities}
        if config.stage1.start_from is not None:
            load_start(config.stage1.start_from, built)
    # On each machine one process decodes, while the others wait for the lock of the cache.
    data = prepare(config, cache_dir, progress=progress if ranks.first else None)
    if not ranks.first:
        silent = EpochLog([])
        fit_stage1(config, data, out, silent, resume=resume, tell=lambda _: None, bar=False, device=device, ranks=ranks)
        return {}
    for warning in data.warnings:
        tell(f"warning: {warning}")
    with _alone(out):
        _claim(out, config, resume=resume)  # again: another process may have begun while this one decoded
        _same_data(out, data, resume=resume)
        write_data_digest(out, data.digest)
        write_decoder_version(out)
        write_config(out, config)
        with epoch_log(config, out) as logs, _full_disk_errors(out):
            return _fit(
                config, data, out, logs, began=began, resume=resume, tell=tell, bar=bar, device=device, ranks=ranks
            )


def _fit(
    config: TrainConfig,
    data: PreparedData,
    out: Path,
    logs: EpochLog,
    *,
    began: float,
    resume: bool,
    tell: Callable[[str], None],
    bar: bool,
    device: torch.device,
    ranks: Ranks,
) -> dict[str, Any]:
    """Run both stages, choose the fusion, compute the final metrics and write the finished run; return the metrics."""
    module = fit_stage1(config, data, out, logs, resume=resume, tell=tell, bar=bar, device=device, ranks=ranks)
    encoders: dict[str, nn.Module] = {name: module.encoder(name) for name in module.names}
    rows = {split: data.splits[split].rows for split in SPLITS}
    history: History = list(module.history)
    fused_head = None

    def log(row: dict[str, float]) -> None:
        history.append(row)
        logs.epoch(row)

    whole = {split: int(rows[split].whole().sum()) for split in SPLITS}
    unfused = [split for split in ("train", "validation") if config.fused_head and not whole[split]]
    said = []
    if unfused:
        said.append(
            f"no fused head: no {' or '.join(unfused)} clip has every modality, so the modalities' own heads answer"
        )
        tell(f"warning: {said[-1]}")
    elif config.fused_head:
        tell("stage 2: the fused head")
        fused_head = train_fused_head(
            config,
            encoders,
            len(data.labels),
            train=rows["train"],
            validation=rows["validation"],
            on_epoch=log,
            device=device,
            labels=data.labels,
        )
    joint_head = module.joint_head if isinstance(module, JointEncoders) else None
    own_heads = not isinstance(module, JointEncoders) or module.trains_own_heads
    chosen = None
    if config.fusion is None and isinstance(module, DetachedEncoders):
        tell("certainty: choosing the fusion on validation clips")
        chosen = choose_on(config, encoders, fused_head, train=rows["train"], validation=rows["validation"])
        tell(f"certainty: {one_line(chosen)}")
    spec = chosen.spec if chosen is not None else config.fusion or PAPER
    if unfused:
        spec = without_fused_head(spec)
    parameters = chosen.parameters if chosen is not None else None
    metrics, answers = {}, {}
    for split in ("validation", "test"):
        votes = head_logits(
            encoders,
            fused_head,
            config.inputs,
            rows[split],
            config.quality,
            joint_head=joint_head,
            own_heads=own_heads,
        )
        answers[split] = votes, fused_answer(votes, spec, parameters)
        metrics[split] = figures(*answers[split], data.labels)
    write_votes(out, answers, spec)
    if chosen is not None:
        write_fusion(out, chosen.spec, chosen.parameters, chosen.report, chosen.accuracy)
    write_run(
        out,
        config=config,
        labels=data.labels,
        encoders=encoders,
        shared_head=module.shared_head if isinstance(module, DetachedEncoders) else None,
        fused_head=fused_head,
        joint_head=joint_head,
        samples={m.name: _sample(rows["validation"], m.name).rows(m.name, slice(None)) for m in config.inputs},
        sample_labels=_sample(rows["validation"], config.inputs[0].name).labels,
        metrics=metrics,
        epochs=history,
        quality_report=quality_report(config, rows["train"]),
        training={
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "clips": {split: len(rows[split]) for split in SPLITS},
            "warnings": data.warnings + idle_pairs(module) + said,
            **_presence(rows),
            **({} if config.stage1.start_from is None else {"started_from": start_record(config.stage1.start_from)}),
            "selected_epoch": module.selected_epoch,
            **_effective_dimensions(module),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1),
            "versions": {"dimml": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        },
    )
    logs.result(metrics)
    return metrics


def _with_architectures(config: TrainConfig) -> TrainConfig:
    """Write out the architecture behind every published model's name, so that the run needs neither hub nor folder."""
    modalities = tuple(m.model_copy(update={"encoder": resolved_encoder(m.encoder)}) for m in config.modalities)
    return config.model_copy(update={"modalities": modalities})


def _claim(out: Path, config: TrainConfig, *, resume: bool) -> None:
    """Check that ``out`` is free, or holds an unfinished run of the same config to resume."""
    if not (out / CONFIG_FILE).exists():
        if resume:
            raise ConfigurationError(f"nothing to resume: {out} holds no run", field="--resume")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigurationError(f"{out} exists and is no run directory; choose another with --out", field="--out")
        return
    finished = (out / RUN_FILE).exists()
    if not resume:
        way_on = (
            "choose another place with --out" if finished else "--resume goes on with it, --out chooses another place"
        )
        raise ConfigurationError(f"{out} already holds a {'finished ' if finished else ''}run; {way_on}", field="--out")
    if finished:
        raise ConfigurationError(f"the run in {out} is finished; there is nothing to resume", field="--resume")
    if (began_with := read_decoder_version(out)) != DECODER_VERSION:
        raise ConfigurationError(
            f"the run in {out} was started on clips of decoder version {began_with}, and this dimml has version "
            f"{DECODER_VERSION}: finish it with the dimml it was started with, or train anew with another --out",
            field="--resume",
        )
    # How the fusion is chosen concerns nothing that has been trained so far, and its defaults differ between versions.
    if read_config(out).model_copy(update={"certainty": config.certainty}) != config:
        raise ConfigurationError(
            f"{out} was started with another config (see {out / CONFIG_FILE}); choose another place with --out",
            field="--resume",
        )


@contextmanager
def _full_disk_errors(out: Path) -> Iterator[None]:
    """Turn the OSError of a full disk into a SetupError that says how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise SetupError(
            f"cannot write to {out}: {error.strerror}; free some space, then `--resume --out {out}` goes on after the "
            "last whole epoch"
        ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the run directory, so that no second process writes into it.

    The lock is on the folder itself: it leaves no file behind, and ends with the process however that ends.
    """
    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out, wait=False, best_effort=True) as held:
        if not held:
            raise SetupError(f"another process is training in {out}; wait for it, or take another --out")
        yield


def _same_data(out: Path, data: PreparedData, *, resume: bool) -> None:
    """Check that a resumed run uses its original clips: others could put clips of its training into validation."""
    if resume and read_data_digest(out) != data.digest:
        raise ConfigurationError(
            f"the clips, labels or splits have changed since the run in {out} was started; train anew with another "
            "--out",
            field="--resume",
        )


def _effective_dimensions(module: EncoderTraining) -> dict[str, Any]:
    if not isinstance(module, DetachedEncoders):
        return {}
    counts = module.effective_MD.sum(dim=1).tolist()
    return {"effective_dimensions": dict(zip(module.names, counts, strict=True))}


def _presence(rows: Mapping[Split, ClipRows]) -> dict[str, Any]:
    """Number of clips of every split that have each modality, and that have all; empty if no clip lacks any."""
    if not any(of_split.present for of_split in rows.values()):
        return {}
    return {"present": {split: {**found.counts(), "all": int(found.whole().sum())} for split, found in rows.items()}}


def _sample(clips: ClipRows, modality: str) -> ClipRows:
    """Take ``SAMPLES`` clips, spread evenly over those that have every modality.

    If there are none, over those that have ``modality``, as many for each.
    """
    whole = clips.whole()
    having = np.flatnonzero(whole if whole.any() else clips.has(modality))
    fewest = len(having) if whole.any() else min(clips.counts().values())
    chosen = np.unique(np.linspace(0, len(having) - 1, min(SAMPLES, fewest)).round().astype(np.int64))
    return clips.take(having[chosen])
