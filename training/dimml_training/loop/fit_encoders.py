"""Running stage 1 with Lightning: checkpoints, progress lines, and the best weights at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import distributed

from dimml.errors import SetupError
from dimml_training.config import TrainConfig
from dimml_training.data.loader import batches
from dimml_training.data.prepare import PreparedData
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.distributed import ALONE, Ranks, connected
from dimml_training.evaluation.remarks import duc_remarks
from dimml_training.joint.encoders import JOINT, JointEncoders
from dimml_training.lightning.class_weights import class_weights
from dimml_training.lightning.encoder_module import AVERAGES, SELECTION, EncoderTraining, History
from dimml_training.lightning.trainer import build_trainer, lightning_quiet
from dimml_training.loop.epoch_log import EpochLog
from dimml_training.run.directory import CHECKPOINTS, write_epochs
from dimml_training.run.starting import load_start, take_weights

BEST, LAST = "best.ckpt", "last.ckpt"
CPU = torch.device("cpu")


def fit_stage1(
    config: TrainConfig,
    data: PreparedData,
    out: Path,
    logs: EpochLog,
    *,
    resume: bool,
    tell: Callable[[str], None],
    bar: bool,
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
) -> EncoderTraining:
    """Train stage 1 with Lightning; return the module with its best weights, on the CPU, in evaluation mode.

    One checkpoint is chosen for all encoders, by the mean of their validation accuracies: DUC has aligned them with
    one another, and the shared head fits the encoders of its own epoch only.
    """
    _check_sizes(config, data, ranks)
    torch.manual_seed(config.seed)
    warned: list[str] = []
    bars = [TQDMProgressBar(refresh_rate=5)] if bar else []
    train_rows, validation_rows = data.splits["train"].rows, data.splits["validation"].rows

    def log(history: History) -> None:
        if not ranks.first:
            return
        write_epochs(out, history)
        last = history[-1]
        logs.epoch(last)
        heads = " ".join(f"{key.removeprefix('val_accuracy_')} {v:.1%}" for key, v in last.items() if "accuracy" in key)
        epoch = f"{int(last['epoch']) + 1}/{config.stage1.epochs}"
        line = f"stage 1, epoch {epoch}: loss {last['train_loss']:.3f}, validation accuracy {heads}"
        idle = [pair for pair in idle_pairs(module) if pair not in warned]
        warned.extend(idle)
        joins = [f"note: {remark}" for remark in duc_remarks(history[-2:])]
        for text in (*(f"warning: {pair}" for pair in idle), line, *joins):
            if bars:
                bars[0].print(text)  # prints above the bar
            else:
                tell(text)

    kind = JointEncoders if config.stage1.objective == "joint" else DetachedEncoders
    module: EncoderTraining = kind(config, len(data.labels), train_rows, on_epoch=log)
    names = [*module.names, *((JOINT,) if isinstance(module, JointEncoders) else ())]
    for name in names if config.loss.class_weights is not None else ():
        weights = class_weights(config.loss, data.labels, train_rows, None if name == JOINT else name)
        module.class_weights |= {} if weights is None else {name: weights}
    folder = out / CHECKPOINTS
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        filename=Path(BEST).stem,
        monitor=SELECTION,
        mode="max",
        enable_version_counter=False,
        # Saved at the end of the training epoch, so that a resumed run starts with the next one.
        save_on_train_epoch_end=True,
    )
    # A callback of its own, since Lightning's save_last is only written along with a new best checkpoint. It comes
    # after the other callback, so that its checkpoint includes the latest best one.
    every = ModelCheckpoint(
        dirpath=folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [_HereNow(folder), checkpoint, every, *bars]
    last = folder / LAST
    resuming = resume and last.exists()
    if resuming:
        _checkpoint(last, module)
    elif config.stage1.start_from is not None:
        encoders = {name: module.encoder(name) for name in module.names}
        heads = {name: getattr(module, name, None) for name in ("shared_head", "joint_head")}
        taken = take_weights(load_start(config.stage1.start_from, encoders), data.labels, {**encoders, **heads})
        tell(f"starting from {config.stage1.start_from}: {', '.join(taken)}")
    size = config.stage1.batch_size
    with lightning_quiet():
        trainer = build_trainer(config, device, ranks, callbacks, bar=bar, whole=not train_rows.present)
        try:
            trainer.fit(
                module,
                batches(train_rows, size, seed=config.seed, ranks=ranks),
                batches(validation_rows, max(1, 4 * size // ranks.size), ranks=ranks),
                ckpt_path=last if resuming else None,
            )
        except SystemExit:  # Lightning turns Ctrl-C into this
            raise SetupError(f"interrupted; `--resume --out {out}` continues after the last whole epoch") from None
    if connected().size > 1:
        distributed.barrier()
        distributed.destroy_process_group()
    if ranks.first:
        best = _checkpoint(folder / BEST, module)
        averaged = best[AVERAGES]["values"] if AVERAGES in best else {}
        module.load_state_dict({**best["state_dict"], **averaged})
        module.selected_epoch = int(best["epoch"])
    return module.cpu().eval()


class _HereNow(Callback):
    """Keeps the best epoch of a run directory that has moved: Lightning forgets it if its path has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))  # as ModelCheckpoint has it

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Rewrite the paths that the checkpoint callbacks are about to restore."""
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                state["dirpath"] = str(self.folder)
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = self._here(state[key])
                state["best_k_models"] = {self._here(path): score for path, score in state["best_k_models"].items()}

    def _here(self, path: str) -> str:
        return str(self.folder / Path(path).name) if path else path


def idle_pairs(module: EncoderTraining) -> list[str]:
    """Describe, one line each, the pairs of modalities for which the separation leaves DUC nothing to compare."""
    return module.idle_pairs() if isinstance(module, DetachedEncoders) else []


def _check_sizes(config: TrainConfig, data: PreparedData, ranks: Ranks) -> None:
    """Check that there are enough clips for each process; raises an error if not."""
    train, validation = len(data.splits["train"].rows), len(data.splits["validation"].rows)
    if train < 2 * ranks.size:
        raise SetupError(
            f"stage 1 needs at least 2 training clips{f' for each of {ranks.size} processes' if ranks.size > 1 else ''}"
            f", and there are {train}: batch normalisation and DUC compare clips"
        )
    if validation < 2 and config.fusion is None and config.stage1.objective == "detached":
        raise SetupError(
            f"the fusion is chosen on validation clips, and there is {validation}: give 2 at least, or fix `fusion` in "
            "the config"
        )
    if validation < ranks.size:
        raise SetupError(f"{validation} validation clips cannot be shared among {ranks.size} processes")


def _checkpoint(path: Path, module: EncoderTraining) -> dict[str, Any]:
    """Load a checkpoint. Raises SetupError if it cannot be read, or its weights do not fit the module."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
        found = {name: weight.shape for name, weight in content["state_dict"].items()}
    except Exception as error:  # damaged bytes make torch's unpickler raise anything
        raise SetupError(f"the checkpoint {path} cannot be read; train anew with another --out") from error
    if found != {name: weight.shape for name, weight in module.state_dict().items()}:
        raise SetupError(
            f"the checkpoint {path} is of another config: its weights do not fit; train anew with another --out"
        )
    return content
