"""Names, types and shapes of every model of a bundle: what ``config.pbtxt`` says and what the server accepts.

Dimensions leave out the batch where ``max_batch_size`` is above 0, as in Triton's model configuration; -1 is a free
dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.prediction_sets.answers import AnswerSets

Datatype = Literal["FP32", "FP64", "UINT8", "BOOL", "BYTES"]
#: numpy type of each datatype on the wire: little-endian; BYTES as objects of ``bytes``.
NUMPY_TYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "UINT8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "BYTES": np.dtype(np.object_),
}
_DATATYPES: Final = {dtype: datatype for datatype, dtype in NUMPY_TYPES.items()}
Role = Literal["encoder", "fusion", "entry", "media"]

FEATURES, LOGITS, PRESENT = "FEATURES", "LOGITS", "PRESENT"
PROBABILITIES, CERTAINTY, WEIGHTS, STATUS = "PROBABILITIES", "CERTAINTY", "WEIGHTS", "STATUS"
#: Outputs of an entry or media model whose bundle has prediction sets: which labels are in the set, whether the answer
#: abstained, and why (empty unless it did).
SET, ABSTAINED, ABSTAINED_REASON = "SET", "ABSTAINED", "ABSTAINED_REASON"
SET_OUTPUTS: Final = (SET, ABSTAINED, ABSTAINED_REASON)
MEDIA, START_S, END_S = "MEDIA", "START_S", "END_S"
#: Parameter of an answer of a media model: true where a track of the recording was cut off, left out otherwise.
TRUNCATED: Final = "truncated"
#: Parameter of an answer of a media model that was asked to explain itself: ``dimml.prediction.Explanation`` as JSON.
EXPLANATION: Final = "explanation"
#: Outputs of the fusion model, and of every answer.
FUSED_OUTPUTS: Final = (PROBABILITIES, LOGITS, CERTAINTY, WEIGHTS)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model; ``datatype`` in KServe v2's spelling."""

    name: str
    datatype: Datatype
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the repository. ``modality`` is set for an encoder."""

    name: str
    role: Role
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modality: str | None = None


def truncation_names(modality: str) -> tuple[str, str]:
    """Names of the parameters with the seconds that a truncated track holds, and that its header promises."""
    return f"{modality}_held_s", f"{modality}_promised_s"


def datatype_of(dtype: np.dtype[Any]) -> Datatype:
    """Return the datatype of a numpy type on the wire. Raises KeyError if it has none."""
    return _DATATYPES[dtype.newbyteorder("<")]


def features_input(modality: str) -> str:
    """Name of the fusion model's input for a modality's features."""
    return f"{modality.upper()}_{FEATURES}"


def logits_input(modality: str) -> str:
    """Name of the fusion model's input for a modality's logits."""
    return f"{modality.upper()}_{LOGITS}"


def file_input(tensor: str) -> str:
    """Name of the media model's input for one modality's own file."""
    return f"{tensor}_FILE"


def channel_parameter(modality: str) -> str:
    """Name of the answer's parameter that says what was heard of a modality's channels."""
    return f"channel_{modality}"


def damage_parameter(modality: str) -> str:
    """Name of the answer's parameter that says which damage the request had done to a modality."""
    return f"damage_{modality}"


def fusion_inputs(
    bundle: Bundle, features: Mapping[str, FloatArray], logits: Mapping[str, FloatArray], present_BM: BoolArray
) -> dict[str, npt.NDArray[Any]]:
    """Build the fusion model's inputs from features ``[B, D]`` and logits ``[B, C]`` by modality."""
    tensors: dict[str, npt.NDArray[Any]] = {PRESENT: present_BM}
    for modality in bundle.modalities:
        tensors[features_input(modality.name)] = features[modality.name]
        tensors[logits_input(modality.name)] = logits[modality.name]
    return tensors


def fused_from(outputs: Mapping[str, FloatArray]) -> Fused:
    """Read a ``Fused`` from the fusion model's outputs."""
    return Fused(
        probabilities_BC=outputs[PROBABILITIES],
        logits_BC=outputs[LOGITS],
        certainty_BH=outputs[CERTAINTY],
        weights_BH=outputs[WEIGHTS],
    )


def fused_outputs(fused: Fused) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of a fusion in the order of ``FUSED_OUTPUTS``; inverse of ``fused_from``."""
    return {
        PROBABILITIES: fused.probabilities_BC,
        LOGITS: fused.logits_BC,
        CERTAINTY: fused.certainty_BH,
        WEIGHTS: fused.weights_BH,
    }


def set_outputs(sets: AnswerSets | None) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of ``SET_OUTPUTS`` for B answers; none for a bundle without prediction sets."""
    if sets is None:
        return {}
    texts = [("" if reason is None else reason.value).encode() for reason in sets.reasons]
    return {
        SET: sets.set_BC,
        ABSTAINED: np.array([[reason is not None] for reason in sets.reasons], np.bool_),
        ABSTAINED_REASON: np.array([[text] for text in texts], np.object_),
    }


def model_specs(bundle: Bundle) -> tuple[ModelSpec, ...]:
    """Specify all models of a bundle: encoders in order, fusion, entry, media."""
    batch, classes, heads = bundle.max_batch_size, bundle.classes, len(bundle.heads)

    def tensor_input(index: int, optional: bool) -> TensorSpec:
        modality = bundle.modalities[index]
        return TensorSpec(modality.tensor, datatype_of(modality.dtype), modality.shape, optional)

    encoders = tuple(
        ModelSpec(
            name=bundle.encoder_model(encoder.modality.name),
            role="encoder",
            max_batch_size=batch,
            inputs=(tensor_input(index, optional=False),),
            outputs=(TensorSpec(FEATURES, "FP32", (encoder.features,)), TensorSpec(LOGITS, "FP32", (classes,))),
            modality=encoder.modality.name,
        )
        for index, encoder in enumerate(bundle.encoders)
    )
    fused = (
        TensorSpec(PROBABILITIES, "FP32", (classes,)),
        TensorSpec(LOGITS, "FP32", (classes,)),
        TensorSpec(CERTAINTY, "FP32", (heads,)),
        TensorSpec(WEIGHTS, "FP32", (heads,)),
    )
    answer: tuple[TensorSpec, ...] = (*fused, TensorSpec(STATUS, "BYTES", (len(bundle.modalities),)))
    if bundle.prediction_sets is not None:
        answer += (
            TensorSpec(SET, "BOOL", (classes,)),
            TensorSpec(ABSTAINED, "BOOL", (1,)),
            TensorSpec(ABSTAINED_REASON, "BYTES", (1,)),
        )
    fusion = ModelSpec(
        name=bundle.fusion_model,
        role="fusion",
        max_batch_size=batch,
        inputs=(
            *(TensorSpec(features_input(e.modality.name), "FP32", (e.features,)) for e in bundle.encoders),
            *(TensorSpec(logits_input(e.modality.name), "FP32", (classes,)) for e in bundle.encoders),
            TensorSpec(PRESENT, "BOOL", (len(bundle.modalities),)),
        ),
        outputs=fused,
    )
    entry = ModelSpec(
        name=bundle.name,
        role="entry",
        max_batch_size=batch,
        inputs=tuple(tensor_input(index, optional=True) for index in range(len(bundle.encoders))),
        outputs=answer,
    )
    media = ModelSpec(
        name=bundle.media_model,
        role="media",
        max_batch_size=0,
        inputs=(
            TensorSpec(MEDIA, "BYTES", (1,), optional=True),
            *(TensorSpec(file_input(m.tensor), "BYTES", (1,), optional=True) for m in bundle.modalities),
            TensorSpec(START_S, "FP64", (1,), optional=True),
            TensorSpec(END_S, "FP64", (1,), optional=True),
        ),
        outputs=tuple(TensorSpec(o.name, o.datatype, (1, *o.dims)) for o in answer),
    )
    return (*encoders, fusion, entry, media)
