"""Stage 2: one linear head on the concatenated features of frozen encoders (docs/adr/0001)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dimml.errors import SetupError
from dimml_training.config import TrainConfig
from dimml_training.data.augment import augment
from dimml_training.data.loader import ClipRows, batches
from dimml_training.lightning.class_weights import class_weights
from dimml_training.lightning.encoder_module import build_optimiser, learning_rate, step_seed

#: Added to the seed, so that stage 2 does not draw the noise of stage 1 again.
SEED_OFFSET = 2**40
CPU = torch.device("cpu")


@torch.no_grad()
def concatenated_features(encoders: Mapping[str, nn.Module], rows: Mapping[str, Tensor]) -> Tensor:
    """Concatenate the features of all modalities in order, ``[B, M·D]``; the encoders must be in evaluation mode."""
    return torch.cat([encoder(rows[name])[0] for name, encoder in encoders.items()], dim=1)


def _on(device: torch.device, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in rows.items()}


def train_fused_head(
    config: TrainConfig,
    encoders: Mapping[str, nn.Module],
    classes: int,
    *,
    train: ClipRows,
    validation: ClipRows,
    on_epoch: Callable[[dict[str, float]], None],
    device: torch.device = CPU,
    labels: Sequence[str] = (),
) -> nn.Linear:
    """Train the fused head; return the one of the epoch with the best validation accuracy (ties: lowest loss).

    Only clips with every modality are used; both splits need some. ``labels`` name the classes, for their weights.
    The encoders must be in evaluation mode, and are not changed, not even their batch statistics. ``on_epoch`` is
    called with a row of metrics after each epoch. Runs on ``device``; encoders and head are on the CPU afterwards.
    Raises SetupError if the validation loss is not finite.
    """
    train, validation = (clips.take(np.flatnonzero(clips.whole())) for clips in (train, validation))
    stage = config.stage2
    width = sum(m.encoder.width for m in config.modalities)
    torch.manual_seed(step_seed(config.seed, SEED_OFFSET))
    head = nn.Linear(width, classes).to(device)
    for encoder in encoders.values():
        encoder.to(device)
    optimiser = build_optimiser(head.parameters(), stage.optimiser)
    weight_C = class_weights(config.loss, labels, train, None)
    weight_C = None if weight_C is None else weight_C.to(device)
    smoothing = config.loss.label_smoothing
    clean = [
        (concatenated_features(encoders, _on(device, batch.rows)), batch.labels_B.to(device))
        for batch in batches(validation, 4 * stage.batch_size)
    ]
    features_ND = torch.cat([features for features, _ in clean])
    labels_N = torch.cat([labels for _, labels in clean])
    loader = batches(train, stage.batch_size, seed=config.seed + 1)
    best, best_state = (-1.0, 0.0), {}
    step = 0
    for epoch in range(stage.epochs):
        lr = learning_rate(stage.optimiser, epoch, stage.epochs)
        for group in optimiser.param_groups:
            group["lr"] = lr
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # ours, and DataLoader only knows Sampler
        for rows, labels_B, *_ in loader:
            step += 1
            torch.manual_seed(step_seed(config.seed, SEED_OFFSET + step))
            there = _on(device, rows)
            corrupted = {m.input.name: augment(m.input, m.augment, there[m.input.name]) for m in config.modalities}
            logits_BC = head(concatenated_features(encoders, corrupted))
            loss = cross_entropy(logits_BC, labels_B.to(device), weight_C, label_smoothing=smoothing)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            if stage.optimiser.clip_norm is not None:
                nn.utils.clip_grad_norm_(head.parameters(), stage.optimiser.clip_norm)
            optimiser.step()
        with torch.no_grad():
            logits_NC = head(features_ND)
            accuracy = float((logits_NC.argmax(dim=1) == labels_N).float().mean())
            validation_loss = float(cross_entropy(logits_NC, labels_N))
        if not math.isfinite(validation_loss):
            raise SetupError(
                f"the validation loss of epoch {epoch} of stage 2 is not finite; train anew with a lower "
                "stage2.optimiser.lr and another --out (a run is resumed with its own config only)"
            )
        on_epoch(
            {"stage2_epoch": float(epoch), "lr": lr, "val_accuracy_fused": accuracy, "val_loss_fused": validation_loss}
        )
        if (accuracy, -validation_loss) > best:
            best = (accuracy, -validation_loss)
            best_state = {key: value.clone() for key, value in head.state_dict().items()}
    head.load_state_dict(best_state)
    for encoder in encoders.values():
        encoder.cpu()
    return head.cpu().eval().requires_grad_(False)
