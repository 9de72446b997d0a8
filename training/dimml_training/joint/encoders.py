"""Stage 1 of a joint training: all encoders under the loss of one joint head, with or without balanced gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from dimml_training.config import TrainConfig
from dimml_training.data.loader import Batch, ClipRows, showing, spread_out
from dimml_training.distributed import connected, sum_of_all
from dimml_training.joint.modulation import ogm_coefficients, ogm_modulate, pareto_gradients
from dimml_training.lightning.encoder_module import SELECTION, EncoderTraining, History, selection
from dimml_training.models.joint_head import SplitHead, build_joint_head

#: Name of the joint head in metrics.
JOINT = "joint"


def without_some(present_BM: Tensor, probability: float) -> Tensor:
    """Drop each modality of each clip with some probability, ``[B, M]``; of a clip that has any, one stays at least.

    Which one stays is drawn from torch's global generator too, all equally likely.
    """
    kept_BM = present_BM & (torch.rand(present_BM.shape, device=present_BM.device) >= probability)
    drawn_BM = torch.rand(present_BM.shape, device=present_BM.device).masked_fill(~present_BM, -1.0)
    one_BM = torch.zeros_like(present_BM).scatter_(1, drawn_BM.argmax(dim=1, keepdim=True), value=True)
    return torch.where(kept_BM.any(dim=1, keepdim=True), kept_BM, one_BM & present_BM)


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
        widths = [m.encoder.width for m in config.modalities]
        self.joint_head = build_joint_head(self.joint.fusion, widths, classes, flags=self.joint.presence_flag)
        self.trains_own_heads = self.joint.modulation == "mmpareto"
        for name in self.names:
            self.encoder(name).head.requires_grad_(self.trains_own_heads)
        self._coefficients_M = torch.ones(len(self.names))
        self._joint_gradients: dict[nn.Parameter, Tensor | None] = {}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch: ``joint``, and with MMPareto ``own``, summed over modalities."""
        encoded = {name: self.encode(name, batch.rows[name]) for name in self.names if len(batch.rows[name])}
        # Detached training has this dropout before each own head; here it comes before the joint head.
        dropped = {name: self.encoder(name).dropout(features_BD) for name, (features_BD, _) in encoded.items()}
        present = self._present(batch)
        features = self.joint_head.inputs(self._spread_out(dropped, batch), present)
        parts = {"joint": self._joint_loss(self.joint_head(features), batch)}
        if self.joint.modulation == "ogm_ge":
            with torch.no_grad():
                of_each = cast(SplitHead, self.joint_head).parts(features)
            # Modalities are compared on what shows the clip: no outliers.
            shown = [showing(batch, name) for name in self.names]
            both = [b if a is None else a if b is None else a & b for a, b in zip(present, shown, strict=True)]
            self._coefficients_M = ogm_coefficients(of_each, batch.labels_B, self.joint.ogm_alpha, both)
        elif self.joint.modulation == "mmpareto" and encoded:
            shared = [parameter for name in encoded for parameter in self.encoder(name).embed.parameters()]
            gradients = torch.autograd.grad(parts["joint"], shared, retain_graph=True, allow_unused=True)
            self._joint_gradients = dict(zip(shared, gradients, strict=True))
            parts["own"] = torch.stack(
                [self.row_loss(logits, batch, {}, name) for name, (_, logits) in encoded.items()]
            ).sum()
        return parts

    def _present(self, batch: Batch) -> list[Tensor | None]:
        """What the joint head is to see of each modality, as booleans ``[B]``; None for all of it."""
        given = [batch.present.get(name) for name in self.names]
        if self.joint.modality_dropout == 0.0 or not self.training:
            return given
        every_B = torch.ones_like(batch.labels_B, dtype=torch.bool)
        present_BM = torch.stack([every_B if there_B is None else there_B for there_B in given], dim=1)
        return list(without_some(present_BM, self.joint.modality_dropout).unbind(dim=1))

    def _spread_out(self, features: Mapping[str, Tensor], batch: Batch) -> list[Tensor]:
        """Features ``[B, D]`` of every modality, zeros where a clip lacks it."""
        nothing = [m.encoder.width for m in self.config.modalities]
        like = next(self.joint_head.parameters())
        return [
            spread_out(features[name], batch.present.get(name))
            if name in features
            else like.new_zeros(len(batch.labels_B), width)
            for name, width in zip(self.names, nothing, strict=True)
        ]

    def _joint_loss(self, logits_BC: Tensor, batch: Batch) -> Tensor:
        """Cross entropy, mean over the clips of all processes of which any modality is there."""
        if not batch.present and not (connected().size > 1 and self.class_weights):
            return self.mean_loss(logits_BC, batch.labels_B, JOINT, soft_BC=batch.clip_targets)
        every_B = torch.ones_like(batch.labels_B, dtype=torch.bool)
        any_B = torch.stack([batch.present.get(name, every_B) for name in self.names]).any(dim=0)
        divisor = sum_of_all(self._weight_of(JOINT, batch.labels_B[any_B])) / connected().size
        if not any_B.any():
            return logits_BC.detach().new_zeros(())
        soft_BC = None if batch.clip_targets is None else batch.clip_targets[any_B]
        return self.mean_loss(logits_BC[any_B], batch.labels_B[any_B], JOINT, divisor, soft_BC=soft_BC)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Balance the gradients of this step."""
        if self.joint.modulation == "ogm_ge" and self.current_epoch < self.joint.ogm_share * self.config.stage1.epochs:
            for name, coefficient in zip(self.names, self._coefficients_M, strict=True):
                ogm_modulate(self.encoder(name), coefficient)
        elif self.joint.modulation == "mmpareto":
            for name in self.names:
                if any(parameter in self._joint_gradients for parameter in self.encoder(name).embed.parameters()):
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

    def validation_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of the joint head, and of the modalities' own heads if they are trained."""
        encoded = {name: self.encode(name, batch.rows[name]) for name in self.names if len(batch.rows[name])}
        features = self._spread_out({name: features for name, (features, _) in encoded.items()}, batch)
        found = {JOINT: self.joint_head.answer(features, [batch.present.get(name) for name in self.names])}
        nothing_BC = torch.zeros_like(found[JOINT])
        for name in self.names if self.trains_own_heads else ():
            here = name in encoded
            found[name] = spread_out(encoded[name][1], batch.present.get(name)) if here else nothing_BC
        return found

    def validation_metrics(
        self, logits: dict[str, Tensor], labels_N: Tensor, present: dict[str, Tensor]
    ) -> dict[str, float]:
        """Accuracy and loss of the joint head, which chooses the epoch, and of each other trained head on its clips."""
        found = {}
        for name, logits_NC in logits.items():
            there = present.get(name, slice(None))
            of_head_NC, of_head_N = logits_NC[there], labels_N[there]
            found[f"val_accuracy_{name}"] = float((of_head_NC.argmax(dim=1) == of_head_N).float().mean())
            found[f"val_loss_{name}"] = float(cross_entropy(of_head_NC, of_head_N))
        found[SELECTION] = selection(found[f"val_accuracy_{JOINT}"], found[f"val_loss_{JOINT}"], 1.0 / len(labels_N))
        return found
