"""Stage 1: detached encoders, each with its own head, one shared head, and DUC between them (design, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dimml.errors import SetupError
from dimml.fusion import fuse
from dimml_training.augment import augment
from dimml_training.config import OptimiserConfig, TrainConfig
from dimml_training.loading import Batch, ClipRows, batches
from dimml_training.losses import duc_loss
from dimml_training.models import Encoder, build_encoder
from dimml_training.separation import effective_dimensions

#: What checkpoints are chosen by; higher is better.
SELECTION = "val_selection"

#: Figures by name, one row per epoch.
History = list[dict[str, float]]


class DetachedEncoders(pl.LightningModule):
    """``Σ_m [CE(z_m, y) + λ_s·CE(s(f_m), y)] + λ_d·DUC``; no modality's loss reaches another one's encoder.

    After ``warmup_epochs`` the effective dimensions are found once on the training set in evaluation mode, and DUC
    joins the loss; only epochs with DUC can then be chosen. ``history`` holds one row of figures per epoch; it is
    part of the checkpoint.
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
        width = config.modalities[0].encoder.width
        self.shared_head = nn.Linear(width, classes)
        self.effective_MD: Tensor
        self.separated: Tensor
        # In the checkpoint: a resumed run must not separate anew, with other weights.
        self.register_buffer("effective_MD", torch.zeros(len(self.names), width, dtype=torch.bool))
        self.register_buffer("separated", torch.zeros((), dtype=torch.bool))
        #: The epoch whose weights were chosen, once training is over.
        self.selected_epoch: int | None = None
        self.history: History = []
        self._epoch_losses: list[Tensor] = []
        self._validation: list[tuple[Tensor, Tensor]] = []

    def encoder(self, name: str) -> Encoder:
        """The encoder of one modality."""
        return cast(Encoder, self.encoders[name])

    @property
    def duc_wanted(self) -> bool:
        """Whether DUC joins the loss after the warm-up."""
        return len(self.names) > 1 and self.config.stage1.lambda_duc > 0.0

    def losses(self, rows: dict[str, Tensor], labels_B: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss of one batch: ``own`` and ``shared`` summed over modalities, and ``duc``."""
        encoded = [self.encoder(name)(rows[name]) for name in self.names]
        features_MBD = torch.stack([features for features, _ in encoded])
        own = torch.stack([cross_entropy(logits, labels_B) for _, logits in encoded]).sum()
        shared = torch.stack([cross_entropy(self.shared_head(features), labels_B) for features in features_MBD]).sum()
        stage = self.config.stage1
        duc = (
            duc_loss(features_MBD, self.effective_MD, stage.duc_temperature)
            if self.separated
            else features_MBD.new_zeros(())
        )
        return {"own": own, "shared": stage.lambda_shared * shared, "duc": stage.lambda_duc * duc}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one corrupted batch."""
        rows, labels_B = batch
        # Seeded by the step, so that a resumed run draws the same noise as an uninterrupted one.
        torch.manual_seed(step_seed(self.config.seed, self.global_step))
        corrupted = {m.input.name: augment(m.input, m.augment, rows[m.input.name]) for m in self.config.modalities}
        parts = self.losses(corrupted, labels_B)
        total = torch.stack(list(parts.values())).sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(labels_B))
        self._epoch_losses.append(torch.stack([total, *parts.values()]).detach())
        return total

    def on_train_epoch_start(self) -> None:
        """Set this epoch's learning rate; separate dimensions when the warm-up ends."""
        stage = self.config.stage1
        lr = learning_rate(stage.optimiser, self.current_epoch, stage.epochs)
        for optimiser in self.trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = lr
        self._epoch_losses.clear()
        if self.duc_wanted and self.current_epoch >= stage.warmup_epochs and not self.separated:
            self.separate()

    @torch.no_grad()
    def separate(self) -> None:
        """Find every modality's effective dimensions on the whole training set, in evaluation mode."""
        was_training = self.training
        self.eval()
        features: dict[str, list[Tensor]] = {name: [] for name in self.names}
        labels: list[Tensor] = []
        for rows, labels_B in batches(self.train_clips, 4 * self.config.stage1.batch_size):
            labels.append(labels_B)
            for name in self.names:
                features[name].append(self.encoder(name)(rows[name].to(self.device))[0])
        self.train(was_training)
        labels_N = torch.cat(labels).to(self.device)
        for index, name in enumerate(self.names):
            self.effective_MD[index] = effective_dimensions(torch.cat(features[name]), labels_N, self.classes)
        self.separated.fill_(True)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect every head's logits."""
        rows, labels_B = batch
        self._validation.append((torch.stack([self.encoder(n)(rows[n])[1] for n in self.names]), labels_B))

    def on_validation_epoch_end(self) -> None:
        """Figures of the validation split; the checkpoint is chosen by the last of them."""
        logits_MNC = torch.cat([logits for logits, _ in self._validation], dim=1)
        labels_N = torch.cat([labels for _, labels in self._validation])
        self._validation.clear()
        accuracy_M = (logits_MNC.argmax(dim=2) == labels_N).float().mean(dim=1)
        loss_M = torch.stack([cross_entropy(logits, labels_N) for logits in logits_MNC])
        self._figures = {f"val_accuracy_{n}": float(a) for n, a in zip(self.names, accuracy_M, strict=True)}
        self._figures |= {f"val_loss_{n}": float(v) for n, v in zip(self.names, loss_M, strict=True)}
        logits_NMC = logits_MNC.transpose(0, 1).float().cpu().numpy()
        fused = fuse(
            logits_NMC,
            np.ones(logits_NMC.shape[:2], np.bool_),
            measure=self.config.fusion.certainty,
            temperature=self.config.fusion.temperature,
        )
        right = fused.logits_BC.argmax(axis=1) == labels_N.cpu().numpy()
        self._figures["val_accuracy_heads"] = float(right.mean())
        # Accuracy decides; it comes in steps of 1 / (M·N), and below half a step the loss breaks ties.
        loss = float(loss_M.mean())
        quantum = 1.0 / (len(self.names) * len(labels_N))
        tie_break = 0.5 * quantum * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0)
        self._figures[SELECTION] = float(accuracy_M.mean()) - tie_break
        # A checkpoint of the warm-up has never seen DUC: any later one is preferred.
        warming_up = self.duc_wanted and not self.separated
        value = -math.inf if warming_up else self._figures[SELECTION]
        self.log(SELECTION, torch.tensor(value, dtype=torch.float64))

    def on_train_epoch_end(self) -> None:
        """Add the epoch's row to ``history`` and hand it to ``on_epoch``."""
        means = torch.stack(self._epoch_losses).mean(dim=0).tolist()
        if not math.isfinite(means[0]):
            raise SetupError(
                f"the loss of epoch {self.current_epoch} is not finite; train anew with a lower "
                "stage1.optimiser.lr and another --out (a run is resumed with its own config only)"
            )
        names = ("train_loss", "train_loss_own", "train_loss_shared", "train_loss_duc")
        lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        losses = dict(zip(names, means, strict=True))
        self.history.append({"epoch": float(self.current_epoch), "lr": lr, **losses, **self._figures})
        self.on_epoch(self.history)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the weights."""
        checkpoint["history"] = list(self.history)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = list(checkpoint["history"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser over all encoders and heads; they share no gradient, so it acts on each alone."""
        return build_optimiser(self.parameters(), self.config.stage1.optimiser)


def build_optimiser(parameters: Any, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The step rule that ``config`` names."""
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def learning_rate(config: OptimiserConfig, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch, counted from 0. A function of the epoch alone: nothing to resume."""
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
    if config.schedule == "step" and epoch >= config.step_epoch:
        return config.lr * 0.1
    return config.lr


def step_seed(seed: int, step: int) -> int:
    """Seed of one training step's noise."""
    return (seed * 1_000_003 + step) % 2**63
