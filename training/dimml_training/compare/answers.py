"""A method's answers, from the encodings of a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import torch

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, FusionParameters, FusionSpec, fuse, heads_present, softmax
from dimml_training.compare.methods import AnswerRule, ChosenFusion, FittedRival, FixedFusion, HeadAlone, JointHead
from dimml_training.corruptions.encoding import EncodedModality
from dimml_training.rivals.choose import ChosenRival
from dimml_training.rivals.heads import head_rows
from dimml_training.run.directory import TrainedRun


@dataclass(frozen=True)
class Fusion:
    """A fusion, its learned parameters, and the report of its choice."""

    spec: FusionSpec
    parameters: FusionParameters | None = None
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """A method's answer to N clips.

    If no modality was present, ``answered_N`` is False and the distribution uniform. Arrays over heads are in the order
    of ``heads``, which is empty for a joint head and for a rival.
    """

    probabilities_NC: FloatArray
    answered_N: BoolArray
    heads: tuple[str, ...]
    certainty_NH: FloatArray
    present_NH: BoolArray
    own_NHC: FloatArray

    def right(self, labels_N: npt.NDArray[np.int64]) -> BoolArray:
        """Which clips were answered correctly, ``[N]``; a clip without an answer counts as wrong."""
        return np.asarray(self.answered_N & (self.probabilities_NC.argmax(axis=1) == labels_N))


def answer(
    rule: AnswerRule,
    run: TrainedRun,
    encoded: Mapping[str, EncodedModality],
    chosen: Fusion | ChosenRival | None = None,
) -> Answer:
    """Answer by a rule, from a run's encodings of one condition and draw.

    ``chosen`` is the fusion or the rival chosen for this run: the rules ``ChosenFusion`` and ``FittedRival`` need it.
    """
    ordered = [encoded[m.name] for m in run.modalities]
    if isinstance(rule, JointHead):
        return _joint(run, ordered)
    if isinstance(rule, HeadAlone):
        return _alone(rule.head, run, ordered)
    if isinstance(rule, FixedFusion):
        return _fused(Fusion(rule.spec), run, ordered)
    if isinstance(rule, ChosenFusion):
        if not isinstance(chosen, Fusion):
            raise TypeError("the rule ChosenFusion needs the fusion that was chosen for the run")
        return _fused(chosen, run, ordered)
    if isinstance(rule, FittedRival):
        if not isinstance(chosen, ChosenRival):
            raise TypeError("the rule FittedRival needs the rival that was fitted for the run")
        return _rival(chosen, run, ordered)
    assert_never(rule)


def _fused(fusion: Fusion, run: TrainedRun, encoded: Sequence[EncodedModality]) -> Answer:
    heads, logits_NHC, present_NH, features = head_inputs(run, encoded, fused_head=fusion.spec.fused_head)
    fused = fuse(logits_NHC, present_NH, fusion.spec, fusion.parameters, features)
    return Answer(
        probabilities_NC=fused.probabilities_BC,
        answered_N=np.asarray(present_NH.any(axis=1)),
        heads=heads,
        certainty_NH=fused.certainty_BH,
        present_NH=present_NH,
        own_NHC=softmax(logits_NHC),
    )


def _rival(chosen: ChosenRival, run: TrainedRun, encoded: Sequence[EncodedModality]) -> Answer:
    _, logits_NHC, present_NH, features = head_inputs(run, encoded, fused_head=chosen.fused_head)
    log_p_NC = chosen.log_probabilities(head_rows(logits_NHC, present_NH, features))
    return _headless(softmax(log_p_NC / np.float32(chosen.answer_temperature)), np.asarray(present_NH.any(axis=1)))


def _alone(head: str, run: TrainedRun, encoded: Sequence[EncodedModality]) -> Answer:
    heads, logits_NHC, present_NH, _ = head_inputs(run, encoded, fused_head=head == FUSED_HEAD)
    index = heads.index(head)
    present_N = present_NH[:, index]
    logits_NC = np.where(present_N[:, None], logits_NHC[:, index], np.float32(0))
    probabilities_NC = softmax(logits_NC)
    return Answer(
        probabilities_NC=probabilities_NC,
        answered_N=present_N,
        heads=(head,),
        certainty_NH=probabilities_NC.max(axis=1, keepdims=True),
        present_NH=present_NH[:, index : index + 1],
        own_NHC=probabilities_NC[:, None],
    )


@torch.no_grad()
def _joint(run: TrainedRun, encoded: Sequence[EncodedModality]) -> Answer:
    if run.joint_head is None:
        raise TypeError("a joint method is scored on a joint training")
    features = [torch.from_numpy(e.features_ND) for e in encoded]
    answered_N = np.asarray(np.stack([e.present_N for e in encoded], axis=1).any(axis=1))
    # A joint head gets zeros for an absent modality: it cannot leave one out.
    logits_NC = run.joint_head.answer(features, [torch.from_numpy(e.present_N) for e in encoded]).float().numpy()
    return _headless(softmax(np.where(answered_N[:, None], logits_NC, np.float32(0))), answered_N)


def _headless(probabilities_NC: FloatArray, answered_N: BoolArray) -> Answer:
    """An answer whose heads have no certainty of their own that could be compared with others'."""
    clips, classes = probabilities_NC.shape
    return Answer(
        probabilities_NC=probabilities_NC,
        answered_N=answered_N,
        heads=(),
        certainty_NH=np.zeros((clips, 0), np.float32),
        present_NH=np.zeros((clips, 0), np.bool_),
        own_NHC=np.zeros((clips, 0, classes), np.float32),
    )


def head_inputs(
    run: TrainedRun, encoded: Sequence[EncodedModality], *, fused_head: bool
) -> tuple[tuple[str, ...], FloatArray, BoolArray, list[FloatArray]]:
    """Collect the heads' names, logits ``[N, H, C]``, presence ``[N, H]`` and features, one ``[N, D_h]`` per head."""
    heads = [m.name for m in run.modalities]
    logits = [e.logits_NC for e in encoded]
    features = [e.features_ND for e in encoded]
    present_NM = np.stack([e.present_N for e in encoded], axis=1)
    if fused_head:
        if run.fused_head is None:
            raise TypeError("every detached training of a comparison has a fused head")
        together_ND = np.concatenate(features, axis=1)
        weight_CD, bias_C = (value.detach().numpy() for value in (run.fused_head.weight, run.fused_head.bias))
        heads.append(FUSED_HEAD)
        features.append(together_ND)
        logits.append((together_ND @ weight_CD.T + bias_C).astype(np.float32))
    return tuple(heads), np.stack(logits, axis=1), heads_present(present_NM, fused_head), features
