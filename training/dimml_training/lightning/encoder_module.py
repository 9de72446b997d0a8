"""Base of detached and joint training of encoders: seeds, learning rates, order of events, history.

Methods are compared fairly because they differ only in their losses: batches, corruption, optimiser, schedule and the
choice of the epoch come from here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dimml.errors import SetupError
from dimml_training.config import OptimiserConfig, TrainConfig
from dimml_training.data.augment import augment
from dimml_training.data.augment_ramp import ramp_factor, ramped
from dimml_training.data.loader import Batch, ClipRows, labels_of, without_lone_rows
from dimml_training.distributed import average_statistics, connected, mean_of_all, rows_of_all, sum_of_all
from dimml_training.lightning.averaging import Averages
from dimml_training.lightning.regularisation import between, inconsistency, mixed_up, with_outliers
from dimml_training.models.encoder import Encoder, build_encoder

#: Metric by which checkpoints are chosen; higher is better.
SELECTION = "val_selection"

#: Entry of a checkpoint with the averages of weights.
AVERAGES = "averages"

#: Metrics by name, one row per epoch.
History = list[dict[str, float]]


class EncoderTraining(pl.LightningModule):
    """One encoder per modality, trained by the losses of a subclass.

    ``history`` holds one row of metrics per epoch and is part of the checkpoint. ``on_epoch`` is called with it after
    each epoch.
    """

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        train: ClipRows,
        on_epoch: Callable[[History], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.on_epoch = on_epoch
        self.config = config
        self.classes = classes
        self.train_clips = train
        self.names = [m.input.name for m in config.modalities]
        self.encoders = nn.ModuleDict(
            {m.input.name: build_encoder(m.input, m.encoder, classes) for m in config.modalities}
        )
        for name in self.names:
            if self.encoder(name).measures:
                self.encoder(name).measure(train.in_batches(name))
        # Compiled encoders are kept beside the modules, so that the names of the weights do not change.
        self._compiled: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {}
        if config.compute.compile:
            # Fixed shapes, compiled once for full batches and once for the last one: the compiler of torch 2.13 fails
            # for a dynamic batch size (`cannot determine truth value of Relational`).
            # Of a modality that some clips lack, batches have any number of rows: it is not compiled.
            whole = [name for name in self.names if name not in train.present]
            self._compiled = {name: torch.compile(self.encoder(name), dynamic=False) for name in whole}
        #: The epoch whose weights were chosen; None until training is over.
        self.selected_epoch: int | None = None
        self.history: History = []
        self._epoch_losses: list[dict[str, Tensor]] = []
        self._validation: list[tuple[dict[str, Tensor], Batch]] = []
        #: Class weights ``[C]`` by modality, and by the name of a head on several; empty: all weigh the same.
        self.class_weights: dict[str, Tensor] = {}
        self._averages = None if config.stage1.ema is None else Averages(config.stage1.ema)
        self._averaged_step = 0
        # Rows that each encoder has seen in this epoch, in this process.
        self._rows_seen: dict[str, int] = dict.fromkeys(self.names, 0)

    def encoder(self, name: str) -> Encoder:
        """The encoder of one modality."""
        return cast(Encoder, self.encoders[name])

    def encode(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one modality to features ``[B, D]`` and own logits ``[B, C]``, FP32.

        In training the encoder computes with the precision of ``config.compute``, compiled if that says so.
        """
        encoder: Callable[[Tensor], tuple[Tensor, Tensor]] = self.encoder(name)
        if not self.training:
            return encoder(rows)
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.config.compute.precision)
        with torch.autocast(rows.device.type, half, enabled=half is not None):
            features_BD, logits_BC = self._compiled.get(name, encoder)(rows)
        return features_BD.float(), logits_BC.float()

    def divisors(self, batch: Batch) -> dict[str, Tensor]:
        """What the sum of each modality's losses is divided by; empty where their plain mean is right.

        The number of rows of all processes, or the sum of their weights, by the number of processes, which average
        their gradients: parts of a batch differ in how many of their clips have a modality, or are of which class.
        """
        ranks = connected()
        if ranks.size == 1 or not (self.train_clips.present or self.class_weights):
            return {}
        own = torch.stack([self._weight_of(name, labels_of(batch, name)) for name in self.names])
        return dict(zip(self.names, sum_of_all(own) / ranks.size, strict=True))

    def row_loss(self, logits: Tensor, batch: Batch, divisors: Mapping[str, Tensor], name: str) -> Tensor:
        """Cross entropy of the batch's rows of one modality, mean over them; over those of all processes, if shared."""
        labels = labels_of(batch, name)
        return self.mean_loss(logits, labels, name, divisors.get(name), soft_BC=batch.targets.get(name))

    def mean_loss(
        self,
        logits_BC: Tensor,
        labels_B: Tensor,
        name: str,
        divisor: Tensor | None = None,
        *,
        soft_BC: Tensor | None = None,
    ) -> Tensor:
        """Cross entropy as ``config.loss`` has it: mean by weight, or the sum over ``divisor``.

        Of the distributions ``soft_BC`` in place of the classes, if given; a row weighs what its label does.
        """
        weight_C = self.class_weights.get(name)
        weight_C = None if weight_C is None else weight_C.to(logits_BC.device)
        smoothing = self.config.loss.label_smoothing
        if soft_BC is not None:
            losses_B = cross_entropy(logits_BC, soft_BC, label_smoothing=smoothing, reduction="none")
            losses_B = losses_B if weight_C is None else losses_B * weight_C[labels_B]
            return losses_B.sum() / (self._weight_of(name, labels_B) if divisor is None else divisor)
        if divisor is None:
            return cross_entropy(logits_BC, labels_B, weight_C, label_smoothing=smoothing)
        return cross_entropy(logits_BC, labels_B, weight_C, label_smoothing=smoothing, reduction="sum") / divisor

    def _weight_of(self, name: str, labels_B: Tensor) -> Tensor:
        """Sum of the weights of rows, which is their number without class weights."""
        if name not in self.class_weights:
            return torch.tensor(float(len(labels_B)), device=labels_B.device)
        return self.class_weights[name].to(labels_B.device)[labels_B].sum()

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses of one batch, by name; training minimises their sum."""

    @abstractmethod
    def validation_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Logits ``[B, C]`` of one batch by head, for ``validation_metrics``; zeros where a head has nothing."""

    @abstractmethod
    def validation_metrics(
        self, logits: dict[str, Tensor], labels_N: Tensor, present: dict[str, Tensor]
    ) -> dict[str, float]:
        """Metrics of the validation split, including ``SELECTION``; ``present`` as in ``Batch``, of all N clips."""

    @property
    def selectable(self) -> bool:
        """Whether the weights of this epoch may be chosen."""
        return True

    @property
    def first_selectable_epoch(self) -> int:
        """The first epoch whose weights may be chosen."""
        return 0

    def training_step(self, batch: Batch, batch_index: int) -> Tensor | None:
        """Corrupt one batch and return its loss; None if no modality has two of its clips."""
        batch = without_lone_rows(batch)
        # Seeded by step and rank, so that a resumed run draws the same noise as an uninterrupted one.
        ranks = connected()
        each = self.config.stage1.accumulate
        step = self.global_step * each + batch_index % each
        torch.manual_seed(step_seed(self.config.seed, step * ranks.size + ranks.rank))
        corrupted = self._corrupted(batch)
        for name, rows in corrupted.rows.items():
            self._rows_seen[name] += len(rows)
        with _full_precision(self.device):
            parts = self.losses(self._regularised(corrupted))
            if self.config.stage1.consistency > 0.0:
                parts["consistency"] = self.config.stage1.consistency * self._inconsistency(batch)
        total = torch.stack(list(parts.values())).sum()
        if not total.requires_grad:
            if ranks.size == 1:
                return None
            # The other processes wait for this one's gradients.
            total = total + 0.0 * self.encoder(self.names[0]).head.bias.sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(batch.labels_B))
        self._epoch_losses.append({"": total.detach(), **{f"_{name}": part.detach() for name, part in parts.items()}})
        return total

    def _corrupted(self, batch: Batch) -> Batch:
        """Augment the rows of every modality, as severely as the epoch has it."""
        factor = ramp_factor(self.current_epoch, self.config.stage1.ramp_epochs)
        rows = {
            m.input.name: augment(m.input, ramped(m.augment, factor), batch.rows[m.input.name])
            if len(batch.rows[m.input.name])
            else batch.rows[m.input.name]
            for m in self.config.modalities
        }
        return batch._replace(rows=rows)

    def _regularised(self, batch: Batch) -> Batch:
        """Mix clips and put outliers among them, as the config says."""
        stage = self.config.stage1
        if stage.mixup > 0.0:
            batch = mixed_up(batch, stage.mixup, self.classes)
        if stage.outliers > 0.0:
            batch = with_outliers(batch, self.config.inputs, stage.outliers, self.classes)
        return batch

    def _inconsistency(self, batch: Batch) -> Tensor:
        """How far the answers of the trained heads to clean rows are from those to rows between clean and corrupted."""
        clean = {name: rows.float() for name, rows in batch.rows.items()}
        mixed = between(clean, self._corrupted(batch).rows)
        views = [self.validation_logits(batch._replace(rows=rows)) for rows in (clean, mixed)]
        return inconsistency(views[0], views[1], batch.present)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the weights after each step into their average."""
        if self._averages is not None and self.global_step != self._averaged_step:
            self._averages.update(self)
            self._averaged_step = self.global_step

    def on_train_start(self) -> None:
        """End at once if the run that is resumed had already run out of patience."""
        self._stop_without_progress()

    def _stop_without_progress(self) -> None:
        """Ask the trainer to stop if no epoch of the last ``patience`` is the best."""
        patience = self.config.stage1.patience
        scores = [row[SELECTION] for row in self.history if row["epoch"] >= self.first_selectable_epoch]
        if patience is not None and scores and len(scores) - 1 - scores.index(max(scores)) >= patience:
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        """Set this epoch's learning rate."""
        stage = self.config.stage1
        lr = learning_rate(stage.optimiser, self.current_epoch, stage.epochs)
        for optimiser in self.trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = lr
        self._epoch_losses.clear()
        self._rows_seen = dict.fromkeys(self.names, 0)

    def on_validation_start(self) -> None:
        """Average batch statistics over ranks, so that all of them score and save the same model: the averaged one."""
        self._share_statistics()
        if self._averages is not None:
            self._averages.swap(self)
            self._share_statistics()

    def on_validation_end(self) -> None:
        """Go on with the weights that are trained."""
        if self._averages is not None:
            self._averages.swap(self)

    def _share_statistics(self) -> None:
        if not self.train_clips.present:
            average_statistics(self)
            return
        for name in self.names:
            average_statistics(self.encoder(name), self._rows_seen[name])

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the logits of one batch."""
        with _full_precision(self.device):
            self._validation.append((self.validation_logits(batch), batch._replace(rows={})))

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics of the validation split; the checkpoint is chosen by ``SELECTION``."""
        logits = {
            name: rows_of_all(torch.cat([logits[name] for logits, _ in self._validation]))
            for name in self._validation[0][0]
        }
        batches_seen = [batch for _, batch in self._validation]
        labels_N = rows_of_all(torch.cat([batch.labels_B for batch in batches_seen]))
        present = {
            name: rows_of_all(torch.cat([batch.present[name] for batch in batches_seen]))
            for name in batches_seen[0].present
        }
        self._validation.clear()
        self._validation_metrics = self.validation_metrics(logits, labels_N, present)
        value = self._validation_metrics[SELECTION] if self.selectable else -math.inf
        self.log(SELECTION, torch.tensor(value, dtype=torch.float64), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Add the epoch's row to ``history`` and call ``on_epoch``."""
        steps = self._epoch_losses
        if not steps:
            raise SetupError(
                "no batch had two clips with the same modality: batch normalisation and DUC compare clips; raise "
                "stage1.batch_size"
            )
        means = {f"train_loss{name}": float(torch.stack([step[name] for step in steps]).mean()) for name in steps[0]}
        means = mean_of_all(means)
        if not math.isfinite(means["train_loss"]):
            raise SetupError(
                f"the loss of epoch {self.current_epoch} is not finite; train anew with a lower "
                "stage1.optimiser.lr and another --out (a run is resumed with its own config only)"
            )
        lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append({"epoch": float(self.current_epoch), "lr": lr, **means, **self._validation_metrics})
        self.on_epoch(self.history)
        self._stop_without_progress()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the history, and the averages of weights, with the weights."""
        checkpoint["history"] = list(self.history)
        if self._averages is not None:
            checkpoint[AVERAGES] = self._averages.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history and the averages."""
        self.history = list(checkpoint["history"])
        if self._averages is not None:
            self._averages.load(checkpoint[AVERAGES], self.device)
            self._averaged_step = int(checkpoint["global_step"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build one optimiser for all trained weights."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return build_optimiser(trained, self.config.stage1.optimiser)


def _full_precision(device: torch.device) -> torch.autocast:
    """Context for losses and metrics in FP32, whatever the precision of the training step."""
    return torch.autocast(device.type, enabled=False)


def selection(accuracy: float, loss: float, quantum: float) -> float:
    """Score by which an epoch is chosen: the accuracy, with ties broken by the lower loss.

    Accuracy comes in steps of ``quantum``; the loss contributes less than half a step.
    """
    return accuracy - 0.5 * quantum * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0)


def build_optimiser(parameters: Any, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Build the optimiser that ``config`` names, in its fused form.

    The fused kernel takes less than half the time for encoders of many small layers. It walks weights and gradients
    side by side in memory without checking their layout: code that replaces a gradient must write into the existing
    tensor, to which autograd gave the weight's layout.
    """
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: OptimiserConfig, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch, counted from 0; a function of the epoch alone, so there is no state to resume.

    Warm-up epoch k of n has ``(k + 1) / (n + 1)`` of the full rate.
    """
    warmup = config.warmup_epochs
    if epoch < warmup:
        return config.lr * (epoch + 1) / (warmup + 1)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
    if config.schedule == "step" and epoch >= config.step_epoch:
        return config.lr * 0.1
    return config.lr


def step_seed(seed: int, step: int) -> int:
    """Seed of one training step's noise."""
    return (seed * 1_000_003 + step) % 2**63
