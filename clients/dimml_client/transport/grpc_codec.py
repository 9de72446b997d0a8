"""Conversion between a prediction and the tensors of ``<bundle>_media``."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from dimml.bundle import FUSED_HEAD
from dimml.contract import (
    ABSTAINED,
    ABSTAINED_REASON,
    CERTAINTY,
    EXPLANATION,
    MEDIA,
    NUMPY_TYPES,
    PROBABILITIES,
    SET,
    STATUS,
    TRUNCATED,
    WEIGHTS,
    channel_parameter,
    damage_parameter,
    file_input,
    truncation_names,
)
from dimml.errors import InvalidParameterError, UnavailableError, UnusableMediaError
from dimml.prediction import (
    AbstainReason,
    Explanation,
    FusedHeadAnswer,
    LabelProbability,
    ModalityAnswer,
    Prediction,
    TruncationAnswer,
)
from dimml.status import ModalityStatus, Reason
from dimml_client.transport.request import MEDIA_PART, PredictRequest

_DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Meaning:
    """Meaning of the tensors of one bundle version: the ``parameters`` of its model configuration."""

    #: In the order of PROBABILITIES.
    labels: list[str]
    #: In the order of STATUS.
    modalities: list[str]
    #: In the order of CERTAINTY and WEIGHTS.
    heads: list[str]
    #: Encoder input by modality.
    tensors: dict[str, str]
    #: Coverage and limits of the bundle's prediction sets; None where it has none.
    prediction_sets: dict[str, Any] | None = None


def media_sources(request: PredictRequest, model: str, meaning: Meaning) -> dict[str, Path | bytes]:
    """Return the parts by input tensor. If modalities are chosen, each gets its own file and ``MEDIA`` is not sent.

    Raises the errors of ``/v1/predict``: InvalidParameterError, and UnusableMediaError if none of the requested
    modalities was given, which a message without them could not express.
    """
    for name in request.parts:
        if name != MEDIA_PART and name not in meaning.modalities:
            raise InvalidParameterError(
                f"{name!r} is not a modality of {model!r}; send {MEDIA_PART!r} or one of {meaning.modalities}",
                field=name,
            )
    for name in request.modalities or ():
        if name not in meaning.modalities:
            raise InvalidParameterError(
                f"modalities: {name!r} is not a modality of {model!r}, which has {meaning.modalities}",
                field="modalities",
            )
    wanted = meaning.modalities if request.modalities is None else request.modalities
    if not wanted:
        raise InvalidParameterError(f"modalities: name at least one of {meaning.modalities}", field="modalities")
    own = {file_input(meaning.tensors[name]): request.parts[name] for name in wanted if name in request.parts}
    media = request.parts.get(MEDIA_PART)
    if media is None and not own:
        statuses = {
            name: ModalityStatus.because(Reason.NOT_SENT if name in wanted else Reason.NOT_REQUESTED)
            for name in meaning.modalities
        }
        listed = ", ".join(f"{name} {status}" for name, status in statuses.items())
        raise UnusableMediaError(f"no requested modality is usable: {listed}", statuses=statuses)
    if media is None:
        return own
    if request.modalities is None:
        return {**own, MEDIA: media}
    return {**{file_input(meaning.tensors[name]): media for name in wanted}, **own}


def classes_to_list(request: PredictRequest, meaning: Meaning) -> int:
    """Return how many classes the answer lists. Raises InvalidParameterError."""
    if request.top_k is None:
        return min(_DEFAULT_TOP_K, len(meaning.labels))
    if not 1 <= request.top_k <= len(meaning.labels):
        raise InvalidParameterError(
            f"top_k must be from 1 to {len(meaning.labels)}, the number of classes; got {request.top_k}", field="top_k"
        )
    return request.top_k


def add_input(message: Any, tensor: str, datatype: str, raw: bytes) -> None:
    """Add an input of one element to a ``ModelInferRequest``."""
    message.inputs.add(name=tensor, datatype=datatype, shape=[1])
    message.raw_input_contents.append(raw)


def to_prediction(response: Any, model: str, meaning: Meaning, request: PredictRequest) -> Prediction:
    """Read the answer from a ``ModelInferResponse`` of ``<bundle>_media``.

    Raises InvalidParameterError, and UnavailableError for an explanation that is none.
    """
    raws = {output.name: raw for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)}
    probabilities_C, certainty_H, weights_H = (
        np.frombuffer(raws[name], NUMPY_TYPES["FP32"]) for name in (PROBABILITIES, CERTAINTY, WEIGHTS)
    )
    order = np.argsort(-probabilities_C, kind="stable")[: classes_to_list(request, meaning)]
    ranked = [LabelProbability(label=meaning.labels[i], probability=min(1.0, float(probabilities_C[i]))) for i in order]
    statuses = dict(zip(meaning.modalities, _statuses(raws[STATUS]), strict=True))
    if request.modalities is not None:
        # They were left out by not sending them, so the server reports them as not sent.
        for name in set(meaning.modalities) - set(request.modalities):
            statuses[name] = ModalityStatus.because(Reason.NOT_REQUESTED)
    by_head = {
        head: (float(certainty), float(weight))
        for head, certainty, weight in zip(meaning.heads, certainty_H, weights_H, strict=True)
    }
    all_ok = all(status.ok for status in statuses.values())
    fused = by_head.get(FUSED_HEAD)
    return Prediction(
        request_id=response.id,
        model=model,
        version=int(response.model_version),
        label=ranked[0].label,
        probability=ranked[0].probability,
        predictions=ranked,
        degraded=any(status.degrades for status in statuses.values()),
        truncated=TRUNCATED in response.parameters,
        truncations=_truncations(response.parameters, meaning.modalities),
        modalities={
            name: ModalityAnswer(
                status=status.status,
                reason=status.reason,
                certainty=by_head[name][0] if status.ok else None,
                weight=by_head[name][1] if status.ok else 0.0,
                channel=_text(response.parameters, channel_parameter(name)),
            )
            for name, status in statuses.items()
        },
        fused_head=None
        if fused is None
        else FusedHeadAnswer(certainty=fused[0] if all_ok else None, weight=fused[1] if all_ok else 0.0),
        explanation=_explanation(response.parameters),
        damage=_damage(response.parameters, meaning.modalities),
        **_set_of(raws, meaning, probabilities_C),
    )


def _set_of(raws: Mapping[str, bytes], meaning: Meaning, probabilities_C: npt.NDArray[Any]) -> dict[str, Any]:
    """Read the prediction set, and whether the answer abstained; nothing from a bundle without sets."""
    if SET not in raws:
        return {}
    inside_C = np.frombuffer(raws[SET], np.bool_)
    (reason,) = _texts(raws[ABSTAINED_REASON])
    return {
        "set": [meaning.labels[i] for i in np.argsort(-probabilities_C, kind="stable") if inside_C[i]],
        "abstained": bool(np.frombuffer(raws[ABSTAINED], np.bool_)[0]),
        "abstained_reason": AbstainReason(reason) if reason else None,
    }


def _explanation(parameters: Any) -> Explanation | None:
    text = _text(parameters, EXPLANATION)
    if text is None:
        return None
    try:
        return Explanation.model_validate_json(text)
    except ValidationError as error:
        raise UnavailableError("the server's explanation is not that of a dimml server") from error


def _damage(parameters: Any, modalities: Iterable[str]) -> dict[str, str] | None:
    done = {name: _text(parameters, damage_parameter(name)) for name in modalities}
    return {name: text for name, text in done.items() if text is not None} or None


def _truncations(parameters: Any, modalities: Iterable[str]) -> dict[str, TruncationAnswer]:
    """Read how much there is of each track that was cut off."""
    found = {}
    for modality in modalities:
        held, promised = truncation_names(modality)
        if held in parameters and promised in parameters:
            found[modality] = TruncationAnswer(
                held_s=parameters[held].double_param, promised_s=parameters[promised].double_param
            )
    return found


def _text(parameters: Any, name: str) -> str | None:
    return parameters[name].string_param if name in parameters else None


def _statuses(raw: bytes) -> list[ModalityStatus]:
    return [ModalityStatus.parse(text) for text in _texts(raw)]


def _texts(raw: bytes) -> list[str]:
    """Read the texts of a BYTES tensor: each has four bytes of length, then UTF-8."""
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return texts
