"""Stage 1 of a joint training: all encoders under the loss of one joint head, with or without balanced gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from dimml_training.config import TrainConfig
from dimml_training.data.loader import ClipRows
from dimml_training.joint.modulation import ogm_coefficients, ogm_modulate, pareto_gradients
from dimml_training.lightning.encoder_module import SELECTION, EncoderTraining, History, selection
from dimml_training.models.joint_head import SplitHead, build_joint_head

#: Name of the joint head in metrics.
JOINT = "joint"


class JointEncoders(EncoderTraining):
    """Encoders trained by ``CE(joint(f_1 … f_M), y)``, with MMPareto ``+ Σ_m CE(z_m, y)``.

    The modalities' own heads are trained with MMPareto only. The epoch is chosen by the accuracy of the joint head.
    """

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        train: ClipRows,
        on_epoch: Callable[[History], None] = lambda _: None,
    ) -> None:
        super().__init__(config, classes, train, on_epoch)
        self.joint = config.stage1.joint
        self.joint_head = build_joint_head(self.joint.fusion, [m.encoder.width for m in config.modalities], classes)
        self.trains_own_heads = self.joint.modulation == "mmpareto"
        for name in self.names:
            self.encoder(name).head.requires_grad_(self.trains_own_heads)
        self._coefficients_M = torch.ones(len(self.names))
        self._joint_gradients: dict[nn.Parameter, Tensor | None] = {}

    def losses(self, rows: dict[str, Tensor], labels_B: Tensor) -> dict[str, Tensor]:
        """Losses of one batch: ``joint``, and with MMPareto ``own``, summed over modalities."""
        encoded = {name: self.encode(name, rows[name]) for name in self.names}
        # Detached training has this dropout before each own head; here it comes before the joint head.
        features = [self.encoder(name).dropout(features_BD) for name, (features_BD, _) in encoded.items()]
        parts = {"joint": cross_entropy(self.joint_head(features), labels_B)}
        if self.joint.modulation == "ogm_ge":
            with torch.no_grad():
                of_each = cast(SplitHead, self.joint_head).parts(features)
            self._coefficients_M = ogm_coefficients(of_each, labels_B, self.joint.ogm_alpha)
        elif self.joint.modulation == "mmpareto":
            shared = [parameter for name in self.names for parameter in self.encoder(name).embed.parameters()]
            gradients = torch.autograd.grad(parts["joint"], shared, retain_graph=True, allow_unused=True)
            self._joint_gradients = dict(zip(shared, gradients, strict=True))
            parts["own"] = torch.stack([cross_entropy(logits, labels_B) for _, logits in encoded.values()]).sum()
        return parts

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Balance the gradients of this step."""
        if self.joint.modulation == "ogm_ge" and self.current_epoch < self.joint.ogm_share * self.config.stage1.epochs:
            for name, coefficient in zip(self.names, self._coefficients_M, strict=True):
                ogm_modulate(self.encoder(name), coefficient)
        elif self.joint.modulation == "mmpareto":
            for name in self.names:
                self._integrate(self.encoder(name).embed)

    @torch.no_grad()
    def _integrate(self, embed: nn.Module) -> None:
        """Replace the gradients of one encoder by those of MMPareto."""
        joint, both = [], []
        for parameter in embed.parameters():
            of_joint = self._joint_gradients[parameter]
            if parameter.grad is not None and of_joint is not None:
                joint.append(of_joint)
                both.append(parameter.grad)
        # The backward pass summed both losses: subtracting the joint gradient leaves the modality's own.
        own = [b - j for b, j in zip(both, joint, strict=True)]
        for gradient, integrated in zip(both, pareto_gradients(joint, own, self.joint.pareto_gamma), strict=True):
            gradient.copy_(integrated)  # into the old one: see build_optimiser

    def validation_logits(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits of the joint head, and of the modalities' own heads if they are trained."""
        encoded = {name: self.encode(name, rows[name]) for name in self.names}
        own = {name: logits for name, (_, logits) in encoded.items()} if self.trains_own_heads else {}
        return {JOINT: self.joint_head([features for features, _ in encoded.values()]), **own}

    def validation_metrics(self, logits: dict[str, Tensor], labels_N: Tensor) -> dict[str, float]:
        """Accuracy and loss of the joint head, which chooses the epoch, and of every other trained head."""
        found = {}
        for name, logits_NC in logits.items():
            found[f"val_accuracy_{name}"] = float((logits_NC.argmax(dim=1) == labels_N).float().mean())
            found[f"val_loss_{name}"] = float(cross_entropy(logits_NC, labels_N))
        found[SELECTION] = selection(found[f"val_accuracy_{JOINT}"], found[f"val_loss_{JOINT}"], 1.0 / len(labels_N))
        return found
