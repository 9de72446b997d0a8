"""What the encoders of a bundle would see of a recording, as an answer for a page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from dimml.bundle import Bundle
from dimml.media.types import Decoded, DecodedTrack
from dimml.modality import Flow, Frames, Kind, Series, Waveform
from dimml.status import ModalityStatus, Reason, Status
from dimml_server.views import pictures, series, sound

_PNG: Final = "PNG in base64"


class _Input(BaseModel):
    status: Status
    reason: Reason | None = Field(default=None, description="Why it is not ok.")
    detail: str | None = Field(default=None, description="A sentence about the file, and the way out.")


class SpectrogramPicture(BaseModel):
    """A spectrogram: time to the right, frequency upwards, linear."""

    png: str = Field(description=f"{_PNG}, 8-bit grey.")
    width: int
    height: int
    max_hz: float = Field(description="Frequency of the upper edge; the lower one is 0.")
    top_db: float = Field(description="Decibels from white to black.")
    white_dbfs: float = Field(description="Level of white, in decibels relative to a sine of full scale.")


class WaveformInput(_Input):
    """Sound as an encoder would get it; without data where there is none."""

    kind: Literal["waveform"] = "waveform"
    channel: str | None = Field(default=None, description="What is heard of several channels.")
    sample_rate: int
    seconds: float = Field(description="Length of the encoder's input; shorter sound is padded with silence.")
    peaks: list[tuple[float, float]] | None = Field(
        default=None, description=f"Least and largest sample of up to {sound.MAX_PEAKS} stretches of the same length."
    )
    spectrogram: SpectrogramPicture | None = None


class PicturesInput(_Input):
    """Frames, or flow on the colour wheel, as an encoder would get them; without data where there are none."""

    kind: Literal["frames", "flow"]
    width: int = Field(description="Of each picture shown: the encoder's own, or made smaller.")
    height: int
    count: int = Field(description="Pictures that the encoder gets.")
    times_s: list[float] | None = Field(
        default=None, description="Seconds from the recording's start of each picture shown; null without times."
    )
    frames: list[str] | None = Field(
        default=None, description=f"{_PNG}: all of them, or up to {pictures.MAX_PICTURES}, evenly chosen."
    )
    scale_px: float | None = Field(
        default=None, description="Of flow: the displacement, in pixels of the encoder's input, in full colour."
    )


class ChannelOutline(BaseModel):
    """One channel of a series."""

    name: str = Field(description="As the bundle has it, or its number from 1.")
    unit: str | None = None
    peaks: list[tuple[float, float] | None] = Field(
        description=f"Least and largest value of up to {series.MAX_PEAKS} stretches of the same length; null where "
        "every value is missing."
    )


class SeriesInput(_Input):
    """A series as an encoder would get it; without data where there is none."""

    kind: Literal["series"] = "series"
    sample_rate: float
    seconds: float = Field(description="Length of the encoder's input; what a shorter series lacks is missing.")
    count: int = Field(description="Channels that the encoder gets.")
    channels: list[ChannelOutline] | None = Field(default=None, description=f"The first {series.MAX_CHANNELS} of them.")


ModalityInput = Annotated[WaveformInput | PicturesInput | SeriesInput, Field(discriminator="kind")]


class Inputs(BaseModel):
    """What the encoders of a bundle version would see of a recording."""

    model: str
    version: int
    start_s: float | None = Field(default=None, description="Start of the time range; null for media without time.")
    end_s: float | None = None
    duration_s: float | None = Field(default=None, description="Length of the recording, as far as it is known.")
    modalities: dict[str, ModalityInput]


def build_inputs(bundle: Bundle, decoded: Decoded) -> Inputs:
    """Draw every modality of a decoded recording. Costs processor time: not for the event loop."""
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_REQUESTED))
    return Inputs(
        model=bundle.name,
        version=bundle.version,
        start_s=decoded.start_s,
        end_s=decoded.end_s,
        duration_s=decoded.duration_s,
        modalities={m.name: DRAWN[m.kind](m, decoded.tracks.get(m.name, missing)) for m in bundle.modalities},
    )


def _status(track: DecodedTrack) -> dict[str, Any]:
    return {"status": track.status.status, "reason": track.status.reason, "detail": track.status.detail}


def _waveform(modality: Waveform, track: DecodedTrack) -> WaveformInput:
    answer = WaveformInput(
        **_status(track),
        channel=track.channel,
        sample_rate=modality.sample_rate_hz,
        seconds=round(modality.samples / modality.sample_rate_hz, 6),
    )
    if track.row is None:
        return answer
    spectrogram = sound.spectrogram(track.row, modality.sample_rate_hz)
    height, width = spectrogram.grey_RT.shape
    answer.peaks = sound.outline(track.row)
    answer.spectrogram = SpectrogramPicture(
        png=_text(spectrogram.png),
        width=width,
        height=height,
        max_hz=spectrogram.max_hz,
        top_db=sound.TOP_DB,
        white_dbfs=spectrogram.white_dbfs,
    )
    return answer


def _frames(modality: Frames, track: DecodedTrack) -> PicturesInput:
    return _pictures(modality, track, pictures.frame_pngs)


def _flow(modality: Flow, track: DecodedTrack) -> PicturesInput:
    if track.row is None:
        return _pictures(modality, track, lambda row, numbers: [])
    scale_px = round(pictures.flow_scale_px(track.row, modality.bound_px), 3)
    answer = _pictures(
        modality, track, lambda row, numbers: pictures.flow_pngs(row, numbers, modality.bound_px, scale_px)
    )
    answer.scale_px = scale_px
    return answer


def _pictures(
    modality: Frames | Flow, track: DecodedTrack, draw: Callable[[Any, list[int]], list[bytes]]
) -> PicturesInput:
    height, width = pictures.shown_size(modality.height, modality.width)
    answer = PicturesInput(**_status(track), kind=modality.kind, width=width, height=height, count=modality.frames)
    if track.row is not None:
        numbers = pictures.chosen(modality.frames, modality.height, modality.width)
        answer.frames = [_text(png) for png in draw(track.row, numbers)]
        if len(track.times_s) == modality.frames:
            answer.times_s = [round(track.times_s[number], 6) for number in numbers]
    return answer


def _series(modality: Series, track: DecodedTrack) -> SeriesInput:
    answer = SeriesInput(
        **_status(track),
        sample_rate=modality.sample_rate_hz,
        seconds=round(modality.samples / modality.sample_rate_hz, 6),
        count=modality.channels,
    )
    if track.row is not None:
        names, units = modality.names, modality.units
        answer.channels = [
            ChannelOutline(
                name=str(number + 1) if names is None else names[number],
                unit=None if units is None else units[number],
                peaks=series.outline(values_S),
            )
            for number, values_S in enumerate(track.row.T[: series.MAX_CHANNELS])
        ]
    return answer


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode()


#: Takes a modality of its kind and its track.
Draw = Callable[[Any, DecodedTrack], WaveformInput | PicturesInput | SeriesInput]
DRAWN: Final[Mapping[Kind, Draw]] = {"waveform": _waveform, "frames": _frames, "flow": _flow, "series": _series}
