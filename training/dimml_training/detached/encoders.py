"""Stage 1: detached encoders, each with its own head, one shared head, and DUC between them (docs/adr/0001)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dimml.fusion import fuse
from dimml_training.config import TrainConfig
from dimml_training.data.loader import Batch, ClipRows, batches, labels_of, showing, spread_out
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

    @property
    def first_selectable_epoch(self) -> int:
        """The first epoch with DUC, if there is any."""
        return self.config.stage1.warmup_epochs if self.duc_wanted else 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses of one batch: ``own`` and ``shared`` summed over modalities, and ``duc``.

        Each modality's are means over its own rows, DUC's over the rows that have both modalities of a pair.
        """
        encoded = {name: self.encode(name, batch.rows[name]) for name in self.names if len(batch.rows[name])}
        divisors = self.divisors(batch)
        zero = self.shared_head.weight.new_zeros(())
        own = torch.stack(
            [self.row_loss(logits, batch, divisors, name) for name, (_, logits) in encoded.items()] or [zero]
        ).sum()
        shared = duc = zero
        stage = self.config.stage1
        if stage.lambda_shared > 0.0:
            of_each = [
                self.row_loss(self.shared_head(features), batch, divisors, name)
                for name, (features, _) in encoded.items()
            ]
            shared = stage.lambda_shared * torch.stack(of_each or [zero]).sum()
        if self.separated:
            duc = stage.lambda_duc * self._duc({name: features for name, (features, _) in encoded.items()}, batch)
        return {"own": own, "shared": shared, "duc": duc}

    def _duc(self, features: dict[str, Tensor], batch: Batch) -> Tensor:
        """DUC between the samples of all processes; ``features`` ``[B_m, D]`` of the modalities that have any here."""
        stage = self.config.stage1
        effective_MD = self.effective_MD if stage.separation else None
        there = {name: batch.present.get(name) for name in self.names}
        nothing_BD = self.shared_head.weight.new_zeros(len(batch.labels_B), self.shared_head.in_features)
        features_MBD = torch.stack(
            [spread_out(features[name], there[name]) if name in features else nothing_BD for name in self.names]
        )
        teachers_MND, first = teachers_of_all(features_MBD)
        if not batch.present and not batch.outliers:
            return duc_loss(features_MBD, effective_MD, stage.duc_temperature, teachers_MND=teachers_MND, first=first)
        every_B = torch.ones_like(batch.labels_B, dtype=torch.bool)
        # An outlier shows nothing that another modality could learn from it.
        shown = [showing(batch, name) for name in self.names]
        present_MB = torch.stack([every_B if found is None else found for found in shown])
        present_MN = teachers_of_all(present_MB[:, :, None].to(features_MBD.dtype))[0][:, :, 0] > 0
        return duc_loss(
            features_MBD,
            effective_MD,
            stage.duc_temperature,
            teachers_MND=teachers_MND,
            first=first,
            present_MB=present_MB,
            present_MN=present_MN,
        )

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
        """Find every modality's effective dimensions on all training clips that have it, in evaluation mode."""
        if not self.config.stage1.separation:
            self.effective_MD.fill_(True)
            self.separated.fill_(True)
            return
        was_training = self.training
        self.eval()
        features: dict[str, list[Tensor]] = {name: [] for name in self.names}
        labels: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for batch in batches(self.train_clips, 4 * self.config.stage1.batch_size, ranks=connected()):
            for name in self.names:
                labels[name].append(labels_of(batch, name))
                if len(batch.rows[name]):
                    features[name].append(self.encoder(name)(batch.rows[name].to(self.device))[0])
        self.train(was_training)
        for index, name in enumerate(self.names):
            labels_N = rows_of_all(torch.cat(labels[name])).to(self.device)
            nothing = self.shared_head.weight.new_zeros(0, self.shared_head.in_features)
            features_ND = rows_of_all(torch.cat(features[name] or [nothing])).to(self.device)
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

    def validation_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of every modality's own head."""
        nothing_BC = self.shared_head.weight.new_zeros(len(batch.labels_B), self.classes)
        return {
            name: spread_out(self.encode(name, rows)[1], batch.present.get(name)) if len(rows) else nothing_BC
            for name, rows in batch.rows.items()
        }

    def validation_metrics(
        self, logits: dict[str, Tensor], labels_N: Tensor, present: dict[str, Tensor]
    ) -> dict[str, float]:
        """Accuracy and loss of every head on its clips, and of the weighted vote; the heads' mean chooses the epoch."""
        there = {name: present.get(name, torch.ones_like(labels_N, dtype=torch.bool)) for name in self.names}
        own = [(logits[name][there[name]], labels_N[there[name]]) for name in self.names]
        accuracy_M = torch.stack([(logits_NC.argmax(dim=1) == of_own).float().mean() for logits_NC, of_own in own])
        loss_M = torch.stack([cross_entropy(logits_NC, of_own) for logits_NC, of_own in own])
        found = {f"val_accuracy_{n}": float(a) for n, a in zip(self.names, accuracy_M, strict=True)}
        found |= {f"val_loss_{n}": float(v) for n, v in zip(self.names, loss_M, strict=True)}
        logits_NMC = torch.stack([logits[name] for name in self.names], dim=1).cpu().numpy()
        fused = fuse(logits_NMC, torch.stack(list(there.values()), dim=1).cpu().numpy())
        right = fused.logits_BC.argmax(axis=1) == labels_N.cpu().numpy()
        found["val_accuracy_heads"] = float(right.mean())
        quantum = 1.0 / (len(self.names) * math.lcm(*(len(of_own) for _, of_own in own)))
        found[SELECTION] = selection(float(accuracy_M.mean()), float(loss_M.mean()), quantum)
        return found
