"""One training run from config to run directory: data, stage 1, stage 2, the final figures."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import transformers
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import nn

from dimml import __version__
from dimml.errors import ConfigurationError, SetupError
from dimml_training.config import SPLITS, TrainConfig
from dimml_training.encoder_training import SELECTION, EncoderTraining, History
from dimml_training.epoch_log import EpochLog, epoch_log
from dimml_training.evaluation import figures, fused_answer, head_logits
from dimml_training.joint.encoders import JointEncoders
from dimml_training.loading import ClipRows, batches
from dimml_training.models import resolved_encoder
from dimml_training.prepare import PreparedData, Progress, prepare, quality_report
from dimml_training.report.page import write_report
from dimml_training.run_directory import (
    CHECKPOINTS,
    CONFIG_FILE,
    RUN_FILE,
    read_config,
    read_data_digest,
    write_config,
    write_data_digest,
    write_epochs,
    write_run,
)
from dimml_training.stage1 import DetachedEncoders
from dimml_training.stage2 import train_fused_head
from dimml_training.votes import write_votes

#: Validation clips kept in the run, so that an export can be checked on real clips without the data.
SAMPLES = 16
BEST, LAST = "best.ckpt", "last.ckpt"


def train(
    config: TrainConfig,
    out: Path,
    *,
    cache_dir: Path,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    bar: bool = False,
) -> dict[str, Any]:
    """Train, score the test split once, write the run directory; its metrics.

    ``progress`` is told of decoding, ``tell`` gets lines for a person; with ``bar``, Lightning shows its own bar.
    Raises ConfigurationError where ``out`` holds another run, DataError for the data, SetupError for the rest.
    """
    began = time.monotonic()
    config = _with_architectures(config)
    _claim(out, config, resume=resume)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    data = prepare(config, cache_dir, progress=progress)
    for warning in data.warnings:
        tell(f"warning: {warning}")
    _same_data(out, data, resume=resume)
    write_data_digest(out, data.digest)
    write_config(out, config)
    with epoch_log(config, out) as logs:
        return _fit(config, data, out, logs, began=began, resume=resume, tell=tell, bar=bar)


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
) -> dict[str, Any]:
    """Both stages and the final figures, written as a finished run; its metrics."""
    module = fit_stage1(config, data, out, logs, resume=resume, tell=tell, bar=bar)
    encoders: dict[str, nn.Module] = {name: module.encoder(name) for name in module.names}
    rows = {split: data.splits[split].rows for split in SPLITS}
    history: History = list(module.history)
    fused_head = None

    def log(row: dict[str, float]) -> None:
        history.append(row)
        logs.epoch(row)

    if config.fusion.fused_head and isinstance(module, DetachedEncoders):
        tell("stage 2: the fused head")
        fused_head = train_fused_head(
            config,
            encoders,
            len(data.labels),
            train=rows["train"],
            validation=rows["validation"],
            on_epoch=log,
        )
    joint_head = module.joint_head if isinstance(module, JointEncoders) else None
    own_heads = not isinstance(module, JointEncoders) or module.trains_own_heads
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
        answers[split] = votes, fused_answer(votes, config.fusion)
        metrics[split] = figures(*answers[split], data.labels)
    write_votes(out, answers, config.fusion)
    write_run(
        out,
        config=config,
        labels=data.labels,
        encoders=encoders,
        shared_head=module.shared_head if isinstance(module, DetachedEncoders) else None,
        fused_head=fused_head,
        joint_head=joint_head,
        samples={m.name: _sample(rows["validation"]).rows(m.name, slice(None)) for m in config.inputs},
        sample_labels=_sample(rows["validation"]).labels,
        metrics=metrics,
        epochs=history,
        quality_report=quality_report(config, rows["train"]),
        training={
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "clips": {split: len(rows[split]) for split in SPLITS},
            "warnings": data.warnings,
            "selected_epoch": module.selected_epoch,
            **_effective_dimensions(module),
            "seconds": round(time.monotonic() - began, 1),
            "versions": {"dimml": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        },
    )
    logs.result(metrics)
    write_report(out)
    return metrics


def fit_stage1(
    config: TrainConfig,
    data: PreparedData,
    out: Path,
    logs: EpochLog,
    *,
    resume: bool,
    tell: Callable[[str], None],
    bar: bool,
) -> EncoderTraining:
    """Train stage 1 with Lightning; the module with its best weights, in evaluation mode.

    One checkpoint is chosen for all encoders, by the mean of their validation accuracies: DUC has aligned them with
    one another, and the shared head belongs to that moment.
    """
    torch.manual_seed(config.seed)
    bars = [TQDMProgressBar(refresh_rate=5)] if bar else []
    train_rows = data.splits["train"].rows
    if len(train_rows) < 2:
        raise SetupError("stage 1 needs at least 2 training clips: batch normalisation and DUC compare clips")

    def log(history: History) -> None:
        write_epochs(out, history)
        last = history[-1]
        logs.epoch(last)
        heads = " ".join(f"{key.removeprefix('val_accuracy_')} {v:.1%}" for key, v in last.items() if "accuracy" in key)
        epoch = f"{int(last['epoch']) + 1}/{config.stage1.epochs}"
        line = f"stage 1, epoch {epoch}: loss {last['train_loss']:.3f}, validation accuracy {heads}"
        if bars:
            bars[0].print(line)  # above the bar, not into it
        else:
            tell(line)

    kind = JointEncoders if config.stage1.objective == "joint" else DetachedEncoders
    module: EncoderTraining = kind(config, len(data.labels), train_rows, on_epoch=log)
    folder = out / CHECKPOINTS
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        filename=Path(BEST).stem,
        monitor=SELECTION,
        mode="max",
        enable_version_counter=False,
        # After the epoch's own bookkeeping, so that a resumed run starts at the next epoch.
        save_on_train_epoch_end=True,
    )
    # Of its own: Lightning's save_last is written only along with a new best one. After that, so that it knows it.
    every = ModelCheckpoint(
        dirpath=folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [checkpoint, every, *bars]
    last = folder / LAST
    resuming = resume and last.exists()
    if resuming:
        _checkpoint(last)
    with _lightning_quiet():
        trainer = pl.Trainer(
            max_epochs=config.stage1.epochs,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(
                module,
                batches(train_rows, config.stage1.batch_size, seed=config.seed),
                batches(data.splits["validation"].rows, 4 * config.stage1.batch_size),
                ckpt_path=last if resuming else None,
            )
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise SetupError(f"interrupted; `--resume --out {out}` goes on after the last whole epoch") from None
    best = _checkpoint(folder / BEST)
    module.load_state_dict(best["state_dict"])
    module.selected_epoch = int(best["epoch"])
    module.eval()
    return module


def _checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content. Raises SetupError where it cannot be read."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:  # damaged bytes make torch's unpickler raise anything
        raise SetupError(f"the checkpoint {path} cannot be read; train anew with another --out") from error
    return content


def _with_architectures(config: TrainConfig) -> TrainConfig:
    """The architecture behind every published model's name written out: the run then needs neither hub nor folder."""
    modalities = tuple(m.model_copy(update={"encoder": resolved_encoder(m.encoder)}) for m in config.modalities)
    return config.model_copy(update={"modalities": modalities})


def _claim(out: Path, config: TrainConfig, *, resume: bool) -> None:
    """See that ``out`` is free, or holds an unfinished run of the same config to resume."""
    if not (out / CONFIG_FILE).exists():
        if resume:
            raise ConfigurationError(f"nothing to resume: {out} holds no run", field="--resume")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigurationError(f"{out} exists and is no run directory; choose another with --out", field="--out")
        return
    if not resume:
        raise ConfigurationError(
            f"{out} already holds a run; --resume goes on with it, --out chooses another place", field="--out"
        )
    if (out / RUN_FILE).exists():
        raise ConfigurationError(f"the run in {out} is finished; there is nothing to resume", field="--resume")
    if read_config(out) != config:
        raise ConfigurationError(
            f"{out} was started with another config (see {out / CONFIG_FILE}); choose another place with --out",
            field="--resume",
        )


def _same_data(out: Path, data: PreparedData, *, resume: bool) -> None:
    """A run goes on with the clips that it began with, or its validation split may hold clips it was trained on."""
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


def _sample(clips: ClipRows) -> ClipRows:
    """Some clips, spread evenly over the split."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(SAMPLES, len(clips))).round().astype(np.int64))
    return ClipRows(clips.arrays, clips.slots[chosen], clips.labels[chosen])


@contextmanager
def _lightning_quiet() -> Iterator[None]:
    """Without Lightning's advice and greetings that do not apply here."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 has deprecated.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", module="pytorch_lightning")
        for message in (
            # Batches are one gather from a memory map; worker processes would cost more than they bring.
            r"The '\w+' does not have many workers",
            # A resumed run finds its own checkpoints in the folder; that is the point.
            r"Checkpoint directory .* exists and is not empty",
            # Small data sets have fewer batches than the default logging interval; nothing is logged by step.
            r"The number of training batches .* is smaller than the logging interval",
        ):
            warnings.filterwarnings("ignore", message=message, module="pytorch_lightning")
        try:
            yield
        finally:
            log.setLevel(level)
