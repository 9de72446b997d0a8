"""Stage 1: detached encoders, each with its own head, one shared head, and DUC between them (docs/adr/0001)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dimml.fusion import fuse
from dimml_training.config import TrainConfig
from dimml_training.data.loader import ClipRows, batches
from dimml_training.detached.dimension_separation import effective_dimensions
from dimml_training.detached.losses import duc_loss, ordered_pairs
from dimml_training.distributed import connected, rows_of_all, teachers_of_all
from dimml_training.lightning.encoder_module import SELECTION, EncoderTraining, History, selection


class DetachedEncoders(EncoderTraining):
    """``Σ_m [CE(z_m, y) + λ_s·CE(s(f_m), y)] + λ_d·DUC``; no modality's loss reaches another one's encoder.

    After ``warmup_epochs`` the effective dimensions are found on the training set in evaluation mode, and DUC joins
    the loss; only epochs with DUC can then be chosen. With ``separation`` off, DUC runs on all dimensions.
    """

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        train: ClipRows,
        on_epoch: Callable[[History], None] = lambda _: None,
    ) -> None:
        super().__init__(config, classes, train, on_epoch)
        width = config.modalities[0].encoder.width
        self.shared_head = nn.Linear(width, classes)
        self.shared_head.requires_grad_(config.stage1.lambda_shared > 0.0)
        self.effective_MD: Tensor
        self.separated: Tensor
        # Kept in the checkpoint: a resumed run must not repeat the separation with other weights.
        self.register_buffer("effective_MD", torch.zeros(len(self.names), width, dtype=torch.bool))
        self.register_buffer("separated", torch.zeros((), dtype=torch.bool))

    @property
    def duc_wanted(self) -> bool:
        """Whether DUC joins the loss after the warm-up."""
        return len(self.names) > 1 and self.config.stage1.lambda_duc > 0.0

    @property
    def selectable(self) -> bool:
        """Whether this epoch may be chosen: with DUC, epochs of the warm-up may not, because they do not include it."""
        return bool(self.separated) or not self.duc_wanted

    def losses(self, rows: dict[str, Tensor], labels_B: Tensor) -> dict[str, Tensor]:
        """Weighted losses of one batch: ``own`` and ``shared`` summed over modalities, and ``duc``."""
        encoded = [self.encode(name, rows[name]) for name in self.names]
        features_MBD = torch.stack([features for features, _ in encoded])
        own = torch.stack([cross_entropy(logits, labels_B) for _, logits in encoded]).sum()
        shared = duc = features_MBD.new_zeros(())
        stage = self.config.stage1
        if stage.lambda_shared > 0.0:
            of_each = [cross_entropy(self.shared_head(features), labels_B) for features in features_MBD]
            shared = stage.lambda_shared * torch.stack(of_each).sum()
        if self.separated:
            effective_MD = self.effective_MD if stage.separation else None
            teachers_MND, first = teachers_of_all(features_MBD)
            duc = stage.lambda_duc * duc_loss(
                features_MBD, effective_MD, stage.duc_temperature, teachers_MND=teachers_MND, first=first
            )
        return {"own": own, "shared": shared, "duc": duc}

    def on_train_epoch_start(self) -> None:
        """Set this epoch's learning rate; separate dimensions after the warm-up, and again if configured."""
        super().on_train_epoch_start()
        stage = self.config.stage1
        past = self.current_epoch - stage.warmup_epochs
        again = stage.separation_every is not None and past % stage.separation_every == 0
        if self.duc_wanted and past >= 0 and (again or not self.separated):
            self.separate()

    @torch.no_grad()
    def separate(self) -> None:
        """Find every modality's effective dimensions on the whole training set, in evaluation mode."""
        if not self.config.stage1.separation:
            self.effective_MD.fill_(True)
            self.separated.fill_(True)
            return
        was_training = self.training
        self.eval()
        features: dict[str, list[Tensor]] = {name: [] for name in self.names}
        labels: list[Tensor] = []
        for rows, labels_B in batches(self.train_clips, 4 * self.config.stage1.batch_size, ranks=connected()):
            labels.append(labels_B)
            for name in self.names:
                features[name].append(self.encoder(name)(rows[name].to(self.device))[0])
        self.train(was_training)
        labels_N = rows_of_all(torch.cat(labels)).to(self.device)
        for index, name in enumerate(self.names):
            features_ND = rows_of_all(torch.cat(features[name])).to(self.device)
            self.effective_MD[index] = effective_dimensions(features_ND, labels_N, self.classes)
        self.separated.fill_(True)

    def idle_pairs(self) -> list[str]:
        """Describe, one line each, the ordered pairs of modalities without any dimension for DUC to compare."""
        if not bool(self.separated) or not self.config.stage1.separation:
            return []
        found = []
        for teacher, student in zip(*ordered_pairs(len(self.names)), strict=True):
            if not (self.effective_MD[teacher] & ~self.effective_MD[student]).any():
                counts = [f"{self.names[m]} {int(self.effective_MD[m].sum())}" for m in (teacher, student)]
                found.append(
                    f"DUC has nothing to teach {self.names[student]} from {self.names[teacher]}: no dimension is "
                    f"effective in {self.names[teacher]} alone ({', '.join(counts)} of {self.effective_MD.shape[1]})"
                )
        return found

    def validation_logits(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits of every modality's own head."""
        return {name: self.encode(name, rows[name])[1] for name in self.names}

    def validation_metrics(self, logits: dict[str, Tensor], labels_N: Tensor) -> dict[str, float]:
        """Accuracy and loss of every head and of the weighted vote; the mean of the heads chooses the epoch."""
        logits_MNC = torch.stack([logits[name] for name in self.names])
        accuracy_M = (logits_MNC.argmax(dim=2) == labels_N).float().mean(dim=1)
        loss_M = torch.stack([cross_entropy(logits, labels_N) for logits in logits_MNC])
        found = {f"val_accuracy_{n}": float(a) for n, a in zip(self.names, accuracy_M, strict=True)}
        found |= {f"val_loss_{n}": float(v) for n, v in zip(self.names, loss_M, strict=True)}
        logits_NMC = logits_MNC.transpose(0, 1).cpu().numpy()
        fused = fuse(logits_NMC, np.ones(logits_NMC.shape[:2], np.bool_))
        right = fused.logits_BC.argmax(axis=1) == labels_N.cpu().numpy()
        found["val_accuracy_heads"] = float(right.mean())
        quantum = 1.0 / (len(self.names) * len(labels_N))
        found[SELECTION] = selection(float(accuracy_M.mean()), float(loss_M.mean()), quantum)
        return found
