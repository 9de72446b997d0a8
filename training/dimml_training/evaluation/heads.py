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
from dimml_training.data.loader import ClipRows, prepared_no_signal
from dimml_training.models.joint_head import JointHead

BATCH = 32


@dataclass(frozen=True)
class HeadLogits:
    """Votes of all heads on N clips.

    ``logits_NHC`` are in the order of ``heads``; ``labels_N`` is the truth. ``has_NH`` says which clips have what the
    head reads, whether or not it carries a signal; None: all of them. A joint training answers by
    ``joint_logits_NC`` alone; its heads, if it has any, do not contribute to the answer.
    """

    heads: tuple[str, ...]
    logits_NHC: FloatArray
    present_NH: BoolArray
    labels_N: npt.NDArray[np.int64]
    #: Input features of each head, ``[N, D]``.
    features: tuple[FloatArray, ...] = ()
    joint_logits_NC: FloatArray | None = None
    has_NH: BoolArray | None = None

    def of_head(self, head: int) -> BoolArray:
        """The clips that a head is scored on, ``[N]``: those that have what it reads."""
        return np.ones(len(self.labels_N), np.bool_) if self.has_NH is None else self.has_NH[:, head]


@torch.no_grad()
def head_logits(
    encoders: Mapping[str, nn.Module],
    fused_head: nn.Linear | None,
    modalities: Sequence[Modality],
    clips: ClipRows,
    quality: QualityThresholds,
    *,
    joint_head: JointHead | None = None,
    own_heads: bool = True,
    noise_db: float | None = None,
    seed: int = 0,
) -> HeadLogits:
    """Run the encoders (in evaluation mode) on all clips.

    ``noise_db`` adds white noise to every waveform at that ratio of mean powers; the noise of clip i depends on
    ``seed`` and i alone. A modality that carries no signal, or that a clip lacks, is left out of the clip, as at
    serving; a joint head gets zeros for it. Without ``own_heads``, the encoders' own heads do not vote.
    """
    logits: list[FloatArray] = []
    present: list[BoolArray] = []
    joint: list[FloatArray] = []
    seen: list[list[FloatArray]] = []
    has_NM = np.stack([clips.has(m.name) for m in modalities], axis=1)
    for start in range(0, len(clips), BATCH):
        ids = list(range(start, min(start + BATCH, len(clips))))
        has_BM = has_NM[ids]
        rows = {m.name: torch.from_numpy(clips.rows(m.name, ids)) for m in modalities}
        for modality in modalities:
            if noise_db is not None and modality.track == "audio":
                rows[modality.name] = with_white_noise(rows[modality.name], noise_db, seed=seed, first=start)
        encoded = [
            _nothing_where_absent(encoders[m.name](rows[m.name]), has_BM[:, index])
            for index, m in enumerate(modalities)
        ]
        heads = [own for _, own in encoded] if own_heads else []
        voted_on = [features for features, _ in encoded] if own_heads else []
        if fused_head is not None:
            voted_on.append(torch.cat([features for features, _ in encoded], dim=1))
            heads.append(fused_head(voted_on[-1]))
        seen.append([features.float().numpy() for features in voted_on])
        shape = (len(ids), 0, encoded[0][1].shape[1])
        logits.append(torch.stack(heads, dim=1).float().numpy() if heads else np.zeros(shape, np.float32))
        signal_BM = np.array(
            [
                [
                    has_BM[clip, index] and prepared_no_signal(m, rows[m.name][clip].numpy(), quality) is None
                    for index, m in enumerate(modalities)
                ]
                for clip in range(len(ids))
            ]
        )
        present.append(heads_present(signal_BM, fused_head is not None) if own_heads else signal_BM[:, :0])
        if joint_head is not None:
            signal = torch.from_numpy(signal_BM).unbind(dim=1)
            joint.append(joint_head.answer([features for features, _ in encoded], signal).float().numpy())
    names = tuple(m.name for m in modalities) if own_heads else ()
    return HeadLogits(
        heads=(*names, FUSED_HEAD) if fused_head is not None else names,
        logits_NHC=np.concatenate(logits),
        present_NH=np.concatenate(present),
        labels_N=clips.labels,
        features=tuple(np.concatenate(own) for own in zip(*seen, strict=True)),
        joint_logits_NC=np.concatenate(joint) if joint else None,
        has_NH=heads_present(has_NM, fused_head is not None) if own_heads and not has_NM.all() else None,
    )


def _nothing_where_absent(encoded: tuple[Tensor, Tensor], has_B: BoolArray) -> tuple[Tensor, Tensor]:
    """Zero the features and logits of clips that lack the modality."""
    if has_B.all():
        return encoded
    there_B1 = torch.from_numpy(has_B)[:, None]
    features_BD, logits_BC = (values.where(there_B1, values.new_zeros(())) for values in encoded)
    return features_BD, logits_BC


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

    A head is scored on the clips that have what it reads; ``clips`` is their number, and without any, its other metrics
    are None.
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
            head: _of_head(guess, votes, fused, index, classes) for index, (head, guess) in enumerate(guesses.items())
        },
        "confusion": confusion_matrix(truth_N, answer_N, classes).tolist(),
    }


def _of_head(
    guess_N: npt.NDArray[np.int64], votes: HeadLogits, fused: Fused, head: int, classes: int
) -> dict[str, Any]:
    """Metrics of one head on its own clips."""
    own_N, truth_N = votes.of_head(head), votes.labels_N
    if not own_N.any():
        return {"clips": 0, "accuracy": None, "macro_f1": None, "mean_weight": None, "mean_certainty": None}
    return {
        "clips": int(own_N.sum()),
        "accuracy": float((guess_N == truth_N)[own_N].mean()),
        "macro_f1": macro_f1(truth_N[own_N], guess_N[own_N], classes),
        "mean_weight": float(fused.weights_BH[own_N, head].mean()),
        "mean_certainty": float(fused.certainty_BH[own_N, head].mean()),
    }


def head_probabilities(votes: HeadLogits) -> FloatArray:
    """Softmax of every head's logits, ``[N, H, C]``."""
    return softmax(votes.logits_NHC)
