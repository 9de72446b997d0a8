"""The answer to a prediction request, as every transport and the batch scorer give it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dimml.status import ModalityStatus, Reason, Status


class AbstainReason(StrEnum):
    """Why an answer abstains."""

    LOW_PROBABILITY = "low_probability"
    LARGE_SET = "large_set"
    UNKNOWN_CLASS = "unknown_class"


class LabelProbability(BaseModel):
    """One class and its fused probability."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float = Field(ge=0.0, le=1.0)


class TruncationAnswer(BaseModel):
    """Seconds that a track which was cut off holds, and that its file's header promises."""

    model_config = ConfigDict(frozen=True)

    held_s: float
    promised_s: float


class ModalityAnswer(BaseModel):
    """What one modality contributed. Certainty, weight and vote are None/0 where it is not ``ok``."""

    model_config = ConfigDict(frozen=True)

    status: Status
    reason: Reason | None = Field(default=None, description="Why it is not ok.")
    detail: str | None = Field(default=None, description="A sentence about the file, and the way out.")
    certainty: float | None = Field(default=None, description="How sure this modality's own head is, 0 to 1.")
    weight: float = Field(default=0.0, description="Its head's share of the fused logits; 0 unless ok.")
    label: str | None = Field(default=None, description="Vote of this modality alone.")
    probability: float | None = Field(default=None, description="Softmax probability of that vote.")
    channel: str | None = Field(
        default=None,
        description="What was heard of a recording with several channels: mix, mean, left, right or a number from 0. "
        "Another than the bundle asks for where its mix cancels.",
    )

    @property
    def modality_status(self) -> ModalityStatus:
        """Status and reason as one value."""
        return ModalityStatus(self.status, self.reason, self.detail)


class FusedHeadAnswer(BaseModel):
    """Certainty and weight of the head on all features; it votes only when every modality is ok."""

    model_config = ConfigDict(frozen=True)

    certainty: float | None = None
    weight: float = 0.0


class Timings(BaseModel):
    """Milliseconds spent per stage; ``encode`` is the slowest encoder's."""

    model_config = ConfigDict(frozen=True)

    queue: float
    decode: float
    encode: float
    fuse: float
    total: float


class WithoutAnswer(BaseModel):
    """The answer where one modality is left out."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float


class ModalityExplanation(BaseModel):
    """What one modality that is ``ok`` contributed to the answer."""

    model_config = ConfigDict(frozen=True)

    shapley: float | None = Field(description="Its Shapley value, nats; None where `stopped` came before it.")
    without: WithoutAnswer | None = Field(description="The answer without it; None where nothing is left then.")


class Stretch(BaseModel):
    """A stretch of time, seconds from the start of the media."""

    model_config = ConfigDict(frozen=True)

    start_s: float
    end_s: float


class OcclusionCurve(BaseModel):
    """By stretch, with that stretch of one modality blanked; None where `stopped` came before it."""

    model_config = ConfigDict(frozen=True)

    log_probability: list[float | None] = Field(description="Of the answer's label.")
    label: list[str | None] = Field(description="What the answer is then.")


class Occlusion(BaseModel):
    """How the answer changes where one stretch of time is blanked in one modality."""

    model_config = ConfigDict(frozen=True)

    stretches: list[Stretch]
    modalities: dict[str, OcclusionCurve] = Field(description="Those that are ok and cover time.")


class Explanation(BaseModel):
    """Why the answer is as it is, by modality and, on request, by time."""

    model_config = ConfigDict(frozen=True)

    label: str = Field(description="The answer that is explained.")
    log_probability: float = Field(description="Natural logarithm of its probability.")
    nothing_log_probability: float = Field(description="That of any label where no modality is present: -ln C.")
    modalities: dict[str, ModalityExplanation] = Field(
        description="Those that are ok. Their Shapley values add up to log_probability - nothing_log_probability."
    )
    occlusion: Occlusion | None = Field(default=None, description="Where it was asked for, of media that covers time.")
    stopped: Literal["deadline", "failed"] | None = Field(
        default=None,
        description="Why it is not whole: the request's time ran out, or a model gave no output. The answer is whole.",
    )
    explain_ms: float = Field(description="Time that it took, part of the total.")


#: Fields of an answer that are left out of its JSON unless the request asked for them.
_ON_REQUEST: Final = ("explanation", "damage")
#: Fields of an answer that are left out of its JSON where the bundle has no prediction sets.
_OF_SETS: Final = ("set", "abstained", "abstained_reason")
#: The type's own name is a field's below.
_Names = set[str]


class Prediction(BaseModel):
    """A fused answer, with the contribution of each modality."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    model: str
    version: int
    label: str
    probability: float
    predictions: list[LabelProbability] = Field(description="The top_k classes, most probable first.")
    degraded: bool = Field(description="A requested modality is not ok, and there is still an answer.")
    truncated: bool = Field(
        default=False, description="A requested track was cut off: its file holds less than its header promises."
    )
    truncations: dict[str, TruncationAnswer] = Field(
        default_factory=dict, description="How much there is of tracks that were cut off, by modality."
    )
    modalities: dict[str, ModalityAnswer]
    fused_head: FusedHeadAnswer | None = Field(default=None, description="None where the bundle has no fused head.")
    start_s: float | None = Field(default=None, description="Start of the time range of the media that was predicted.")
    end_s: float | None = None
    timings_ms: Timings | None = Field(default=None, description="None over gRPC, which does not carry it.")
    explanation: Explanation | None = Field(default=None, description="Left out unless `explain` asks for it.")
    damage: dict[str, str] | None = Field(
        default=None, description="Which damage the request had done, by modality; left out where there is none."
    )

    set: list[str] | None = Field(
        default=None,
        description="Labels among which the true one is in the bundle's promised share of answers, the most probable "
        "first; never empty. The promise is marginal, for recordings like those it was calibrated on: it is gone under "
        "drift. Left out where the bundle has no prediction sets.",
    )
    abstained: bool | None = Field(
        default=None,
        description="Whether the answer should not be believed, as its reason says; left out as `set`.",
    )
    abstained_reason: AbstainReason | None = Field(
        default=None, description="Why it abstained; null if it did not. Left out as `set`."
    )

    @property
    def not_asked_for(self) -> _Names:
        """Fields to leave out of the JSON: those that this request, or this bundle, has no use for."""
        left_out = {name for name in _ON_REQUEST if getattr(self, name) is None}
        return left_out.union(_OF_SETS) if self.set is None else left_out
