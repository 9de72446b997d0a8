"""Metrics of a set of clips: each modality's own head, the fused head, and the fused answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, Fused, FusionParameters, FusionSpec, fuse, heads_present, softmax
from dimml.metrics.classification import confusion_matrix, macro_f1, nll
from dimml.modality import Modality
from dimml.signal_check import QualityThresholds
from dimml_training.data.augment import mix_at_snr
from dimml_training.data.loader import ClipRows, batches, prepared_no_signal

BATCH = 32


@dataclass(frozen=True)
class HeadLogits:
    """Votes of all heads on N clips.

    ``logits_NHC`` are in the order of ``heads``; ``labels_N`` is the truth. A joint training answers by
    ``joint_logits_NC`` alone; its heads, if it has any, do not contribute to the answer.
    """

    heads: tuple[str, ...]
    logits_NHC: FloatArray
    present_NH: BoolArray
    labels_N: npt.NDArray[np.int64]
    #: Input features of each head, ``[N, D]``.
    features: tuple[FloatArray, ...] = ()
    joint_logits_NC: FloatArray | None = None


@torch.no_grad()
def head_logits(
    encoders: Mapping[str, nn.Module],
    fused_head: nn.Linear | None,
    modalities: Sequence[Modality],
    clips: ClipRows,
    quality: QualityThresholds,
    *,
    joint_head: nn.Module | None = None,
    own_heads: bool = True,
    noise_db: float | None = None,
    seed: int = 0,
) -> HeadLogits:
    """Run the encoders (in evaluation mode) on all clips.

    ``noise_db`` adds white noise to every waveform at that ratio of mean powers; the noise of clip i depends on
    ``seed`` and i alone. A modality that carries no signal is left out of its clip, as at serving; a joint head gets
    zeros for it. Without ``own_heads``, the encoders' own heads do not vote.
    """
    logits: list[FloatArray] = []
    present: list[BoolArray] = []
    joint: list[FloatArray] = []
    seen: list[list[FloatArray]] = []
    start = 0
    for given, labels_B in batches(clips, BATCH):
        rows = dict(given)
        for modality in modalities:
            if noise_db is not None and modality.track == "audio":
                rows[modality.name] = with_white_noise(rows[modality.name], noise_db, seed=seed, first=start)
        encoded = [encoders[m.name](rows[m.name]) for m in modalities]
        heads = [own for _, own in encoded] if own_heads else []
        voted_on = [features for features, _ in encoded] if own_heads else []
        if fused_head is not None:
            voted_on.append(torch.cat([features for features, _ in encoded], dim=1))
            heads.append(fused_head(voted_on[-1]))
        seen.append([features.float().numpy() for features in voted_on])
        shape = (len(labels_B), 0, encoded[0][1].shape[1])
        logits.append(torch.stack(heads, dim=1).float().numpy() if heads else np.zeros(shape, np.float32))
        signal_BM = np.array(
            [
                [prepared_no_signal(m, rows[m.name][clip].numpy(), quality) is None for m in modalities]
                for clip in range(len(labels_B))
            ]
        )
        present.append(heads_present(signal_BM, fused_head is not None) if own_heads else signal_BM[:, :0])
        if joint_head is not None:
            signal = torch.from_numpy(signal_BM)
            features = [f.where(signal[:, m, None], torch.zeros(())) for m, (f, _) in enumerate(encoded)]
            joint.append(joint_head(features).float().numpy())
        start += len(labels_B)
    names = tuple(m.name for m in modalities) if own_heads else ()
    return HeadLogits(
        heads=(*names, FUSED_HEAD) if fused_head is not None else names,
        logits_NHC=np.concatenate(logits),
        present_NH=np.concatenate(present),
        labels_N=clips.labels,
        features=tuple(np.concatenate(own) for own in zip(*seen, strict=True)),
        joint_logits_NC=np.concatenate(joint) if joint else None,
    )


def with_white_noise(waveform_BS: Tensor, snr_db: float, *, seed: int, first: int = 0) -> Tensor:
    """Waveforms with white noise at a ratio of mean powers; row i of the batch draws from (seed, first + i)."""
    noise = np.stack(
        [
            np.random.default_rng((seed, first + i)).standard_normal(waveform_BS.shape[1], dtype=np.float32)
            for i in range(len(waveform_BS))
        ]
    )
    return mix_at_snr(waveform_BS, torch.from_numpy(noise), torch.full((len(waveform_BS),), snr_db))


def fused_answer(votes: HeadLogits, fusion: FusionSpec, parameters: FusionParameters | None = None) -> Fused:
    """Fuse the votes to the answer that a server gives (``dimml.fusion``).

    A joint training answers by its joint head, and its other heads get weight 0. A fused head that the fusion leaves
    out gets certainty and weight 0.
    """
    joint_NC = votes.joint_logits_NC
    if joint_NC is None:
        idle = votes.heads[-1] == FUSED_HEAD and not fusion.fused_head
        voting = slice(len(votes.heads) - idle)
        fused = fuse(
            votes.logits_NHC[:, voting], votes.present_NH[:, voting], fusion, parameters, votes.features[voting]
        )
        beside = ((0, 0), (0, int(idle)))
        return replace(
            fused, certainty_BH=np.pad(fused.certainty_BH, beside), weights_BH=np.pad(fused.weights_BH, beside)
        )
    return Fused(
        probabilities_BC=softmax(joint_NC),
        logits_BC=joint_NC,
        certainty_BH=np.where(votes.present_NH, head_probabilities(votes).max(axis=2), np.float32(0)),
        weights_BH=np.zeros(votes.present_NH.shape, np.float32),
    )


def figures(votes: HeadLogits, fused: Fused, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy and macro-F1 of every head alone and of the answer, mean weights, and the answer's confusion matrix.

    Rows of the matrix are the truth, columns the answer, in the order of ``labels``.
    """
    classes = len(labels)
    guesses = {head: votes.logits_NHC[:, index].argmax(axis=1) for index, head in enumerate(votes.heads)}
    answer_N = fused.logits_BC.argmax(axis=1)
    truth_N = votes.labels_N
    return {
        "clips": len(truth_N),
        "accuracy": float((answer_N == truth_N).mean()),
        "macro_f1": macro_f1(truth_N, answer_N, classes),
        "nll": nll(fused.probabilities_BC, truth_N),
        "heads": {
            head: {
                "accuracy": float((guess == truth_N).mean()),
                "macro_f1": macro_f1(truth_N, guess, classes),
                "mean_weight": float(fused.weights_BH[:, index].mean()),
                "mean_certainty": float(fused.certainty_BH[:, index].mean()),
            }
            for index, (head, guess) in enumerate(guesses.items())
        },
        "confusion": confusion_matrix(truth_N, answer_N, classes).tolist(),
    }


def head_probabilities(votes: HeadLogits) -> FloatArray:
    """Softmax of every head's logits, ``[N, H, C]``."""
    return softmax(votes.logits_NHC)
