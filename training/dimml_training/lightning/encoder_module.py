"""What every training of encoders shares, detached or joint: seeds, learning rates, order of events, history.

Rivals are compared fairly because they differ in their losses alone: batches, corruption, step rule, schedule and
the choice of the epoch come from here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dimml.errors import SetupError
from dimml_training.config import OptimiserConfig, TrainConfig
from dimml_training.data.augment import augment
from dimml_training.data.loader import Batch, ClipRows
from dimml_training.distributed import average_statistics, connected, mean_of_all, rows_of_all
from dimml_training.models import Encoder, build_encoder

#: What checkpoints are chosen by; higher is better.
SELECTION = "val_selection"

#: Figures by name, one row per epoch.
History = list[dict[str, float]]


class EncoderTraining(pl.LightningModule):
    """One encoder per modality, trained by the losses of a subclass.

    ``history`` holds one row of figures per epoch; it is part of the checkpoint. ``on_epoch`` is handed it after
    each.
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
        # Beside the modules, not in their place: names of weights stay what they are.
        self._compiled: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {}
        if config.compute.compile:
            # Of fixed shapes, one compilation for full batches and one for the last: the compiler of torch 2.13 stops
            # at a batch of any size (`cannot determine truth value of Relational`).
            self._compiled = {name: torch.compile(self.encoder(name), dynamic=False) for name in self.names}
        #: The epoch whose weights were chosen, once training is over.
        self.selected_epoch: int | None = None
        self.history: History = []
        self._epoch_losses: list[dict[str, Tensor]] = []
        self._validation: list[tuple[dict[str, Tensor], Tensor]] = []

    def encoder(self, name: str) -> Encoder:
        """The encoder of one modality."""
        return cast(Encoder, self.encoders[name])

    def encode(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, D]`` and own logits ``[B, C]`` of one modality, FP32; in training, by the arithmetic of
        ``compute``."""
        encoder: Callable[[Tensor], tuple[Tensor, Tensor]] = self.encoder(name)
        if not self.training:
            return encoder(rows)
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.config.compute.precision)
        with torch.autocast(rows.device.type, half, enabled=half is not None):
            features_BD, logits_BC = self._compiled.get(name, encoder)(rows)
        return features_BD.float(), logits_BC.float()

    @abstractmethod
    def losses(self, rows: dict[str, Tensor], labels_B: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss of one batch, by name; their sum is trained on."""

    @abstractmethod
    def validation_logits(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """What ``validation_figures`` needs of one batch: logits ``[B, C]`` by the name of what voted."""

    @abstractmethod
    def validation_figures(self, logits: dict[str, Tensor], labels_N: Tensor) -> dict[str, float]:
        """Figures of the validation split, ``SELECTION`` among them."""

    @property
    def selectable(self) -> bool:
        """Whether the weights as they are may be chosen."""
        return True

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one corrupted batch."""
        rows, labels_B = batch
        # Seeded by the step, so that a resumed run draws the same noise as an uninterrupted one; each rank its own.
        ranks = connected()
        torch.manual_seed(step_seed(self.config.seed, self.global_step * ranks.size + ranks.rank))
        corrupted = {m.input.name: augment(m.input, m.augment, rows[m.input.name]) for m in self.config.modalities}
        with _full_precision(self.device):
            parts = self.losses(corrupted, labels_B)
        total = torch.stack(list(parts.values())).sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(labels_B))
        self._epoch_losses.append({"": total.detach(), **{f"_{name}": part.detach() for name, part in parts.items()}})
        return total

    def on_train_epoch_start(self) -> None:
        """Set this epoch's learning rate."""
        stage = self.config.stage1
        lr = learning_rate(stage.optimiser, self.current_epoch, stage.epochs)
        for optimiser in self.trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = lr
        self._epoch_losses.clear()

    def on_validation_start(self) -> None:
        """What is scored, and kept, is one model."""
        average_statistics(self)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the logits."""
        rows, labels_B = batch
        with _full_precision(self.device):
            self._validation.append((self.validation_logits(rows), labels_B))

    def on_validation_epoch_end(self) -> None:
        """Figures of the validation split; the checkpoint is chosen by ``SELECTION``."""
        logits = {
            name: rows_of_all(torch.cat([logits[name] for logits, _ in self._validation]))
            for name in self._validation[0][0]
        }
        labels_N = rows_of_all(torch.cat([labels for _, labels in self._validation]))
        self._validation.clear()
        self._figures = self.validation_figures(logits, labels_N)
        value = self._figures[SELECTION] if self.selectable else -math.inf
        self.log(SELECTION, torch.tensor(value, dtype=torch.float64), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Add the epoch's row to ``history`` and hand it to ``on_epoch``."""
        steps = self._epoch_losses
        means = {f"train_loss{name}": float(torch.stack([step[name] for step in steps]).mean()) for name in steps[0]}
        means = mean_of_all(means)
        if not math.isfinite(means["train_loss"]):
            raise SetupError(
                f"the loss of epoch {self.current_epoch} is not finite; train anew with a lower "
                "stage1.optimiser.lr and another --out (a run is resumed with its own config only)"
            )
        lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append({"epoch": float(self.current_epoch), "lr": lr, **means, **self._figures})
        self.on_epoch(self.history)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the weights."""
        checkpoint["history"] = list(self.history)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = list(checkpoint["history"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser over everything that is trained."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return build_optimiser(trained, self.config.stage1.optimiser)


def _full_precision(device: torch.device) -> torch.autocast:
    """Losses and figures are FP32, in whatever precision Lightning runs a step."""
    return torch.autocast(device.type, enabled=False)


def selection(accuracy: float, loss: float, quantum: float) -> float:
    """What an epoch is chosen by: accuracy decides; it comes in steps of ``quantum``, and below half a step the lower
    loss breaks ties."""
    return accuracy - 0.5 * quantum * (loss / (1.0 + loss) if math.isfinite(loss) else 1.0)


def build_optimiser(parameters: Any, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The step rule that ``config`` names.

    In one kernel, less than half the time for encoders of many small layers. That kernel walks weights and gradients
    side by side in memory without a look at their layout: whoever replaces a gradient must write into the old one,
    whose layout autograd has made the weight's.
    """
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


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
