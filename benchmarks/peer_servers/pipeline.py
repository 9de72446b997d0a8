"""A bundle's decoding, encoders and fusion as plain calls: what every peer runs, and what no server can do without.

``decode`` is dimml's own, in this process, or one written as the documentation of torchcodec or PyAV teaches it. Every
peer calls the same ONNX files.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, PRESENT, PROBABILITIES, features_input, logits_input
from dimml.media import decode
from dimml.media.types import DecodeRequest
from dimml.modality import Frames, Region, Waveform
from dimml.repository import load_bundle
from dimml.system.outbound import import_quietly

Array = np.ndarray[Any, np.dtype[Any]]
#: Row of each modality, None where it is missing.
Rows = Mapping[str, Array | None]
Decode = Callable[[Bundle, bytes], Rows]
#: How a peer's process learns what to serve.
REPOSITORY, BUNDLE, DECODER, STALL = "PEER_REPOSITORY", "PEER_BUNDLE", "PEER_DECODER", "PEER_STALL"
#: How long a run of a stalled encoder takes; peers know no deadline.
STALL_S = 2.0


def by_dimml(bundle: Bundle, data: bytes) -> Rows:
    """Rows of a recording by dimml's decoder, in this process."""
    sources = dict.fromkeys((modality.name for modality in bundle.modalities), data)
    decoded = decode(DecodeRequest(modalities=bundle.modalities, sources=sources, clip_s=bundle.clip_s))
    return {name: track.row if track.status.ok else None for name, track in decoded.tracks.items()}


def by_pyav(bundle: Bundle, data: bytes) -> Rows:
    """Rows by PyAV: all frames converted to RGB, all sound resampled, then cut to the bundle's clip."""
    import av

    frames, times, samples = [], [], []
    with av.open(io.BytesIO(data)) as container:
        if container.streams.video:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(float(frame.time or 0.0))
    rate = next((m.sample_rate_hz for m in bundle.modalities if isinstance(m, Waveform)), 16000)
    with av.open(io.BytesIO(data)) as container:
        if container.streams.audio:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for heard in container.decode(audio=0):
                samples += [part.to_ndarray()[0] for part in resampler.resample(heard)]
            samples += [part.to_ndarray()[0] for part in resampler.resample(None)]
    sound = np.concatenate(samples) if samples else None
    return _cut(bundle, sound, rate, frames, np.array(times))


def by_torchcodec(bundle: Bundle, data: bytes) -> Rows:
    """Rows by torchcodec: the frames played at the wanted times, the sound of the clip at the wanted rate."""
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    rows: dict[str, Array | None] = {modality.name: None for modality in bundle.modalities}
    video: Any = None
    try:
        video = VideoDecoder(data)
        duration_s = float(video.metadata.duration_seconds)
    except (ValueError, RuntimeError):  # It has no pictures.
        duration_s = float(AudioDecoder(data).metadata.duration_seconds)
    start_s = max(0.0, (duration_s - bundle.clip_s) / 2)
    for modality in bundle.modalities:
        if isinstance(modality, Waveform):
            try:
                sound = AudioDecoder(data, sample_rate=modality.sample_rate_hz, num_channels=1)
            except (ValueError, RuntimeError):  # It has no sound.
                continue
            heard = sound.get_samples_played_in_range(start_s, start_s + bundle.clip_s)
            rows[modality.name] = _padded(heard.data[0].numpy(), modality.samples)
        elif isinstance(modality, Frames) and video is not None:
            seen = video.get_frames_played_at(_wanted_s(modality, start_s, min(bundle.clip_s, duration_s)))
            pictures = seen.data.permute(0, 2, 3, 1).numpy()
            rows[modality.name] = np.stack([_resized(picture, modality) for picture in pictures])
    return rows


DECODERS: dict[str, Decode] = {"dimml": by_dimml, "pyav": by_pyav, "torchcodec": by_torchcodec}


def _cut(bundle: Bundle, sound: Array | None, rate_hz: int, frames: list[Array], times_s: Array) -> Rows:
    """The middle ``clip_s`` seconds of a whole recording."""
    durations = [0.0]
    if len(frames):
        durations.append(float(times_s[-1] + (times_s[-1] - times_s[0]) / max(1, len(times_s) - 1)))
    if sound is not None and not len(frames):
        durations.append(len(sound) / rate_hz)
    start_s = max(0.0, (max(durations) - bundle.clip_s) / 2)
    rows: dict[str, Array | None] = {modality.name: None for modality in bundle.modalities}
    for modality in bundle.modalities:
        if isinstance(modality, Waveform) and sound is not None:
            first = round(start_s * rate_hz)
            rows[modality.name] = _padded(sound[first : first + modality.samples], modality.samples)
        elif isinstance(modality, Frames) and frames:
            wanted = _wanted_s(modality, start_s, min(bundle.clip_s, max(durations)))
            chosen = np.clip(np.searchsorted(times_s, np.array(wanted) + 1e-6, side="right") - 1, 0, None)
            rows[modality.name] = np.stack([_resized(frames[index], modality) for index in chosen])
    return rows


def _wanted_s(modality: Frames, start_s: float, seconds: float) -> list[float]:
    step_s = seconds / modality.frames
    return [start_s + (number + 0.5) * step_s for number in range(modality.frames)]


def _padded(sound: Array, samples: int) -> Array:
    row = np.zeros(samples, np.float32)
    row[: len(sound)] = sound[:samples]
    return row


def _resized(picture: Array, modality: Frames) -> Array:
    import cv2

    height, width = picture.shape[:2]
    region = modality.region or Region(left=0.0, top=0.0, right=1.0, bottom=1.0)
    rows = slice(round(region.top * height), round(region.bottom * height))
    columns = slice(round(region.left * width), round(region.right * width))
    cut = np.ascontiguousarray(picture[rows, columns])
    resized: Array = cv2.resize(cut, (modality.width, modality.height), interpolation=cv2.INTER_AREA)
    return resized


class Pipeline:
    """One bundle in this process. With ``threads`` None, sessions have ONNX Runtime's default options."""

    def __init__(
        self, repository: Path, name: str, decoder: str = "dimml", threads: int | None = 1, stall: str = ""
    ) -> None:
        """``stall`` names the modality whose encoder takes ``STALL_S`` for every run."""
        ort = import_quietly("onnxruntime")
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.bundle = load_bundle(repository, name)
        self.decode: Decode = DECODERS[decoder]
        self._stall = stall

        def session(model: str) -> Any:
            return ort.InferenceSession(
                self.bundle.model_file(repository, model), options, providers=["CPUExecutionProvider"]
            )

        self._encoders = {m.name: session(self.bundle.encoder_model(m.name)) for m in self.bundle.modalities}
        self._fusion = session(self.bundle.fusion_model)

    def rows(self, data: bytes) -> Rows:
        """Rows of a recording."""
        return self.decode(self.bundle, data)

    def encode(self, name: str, row: Array) -> tuple[Array, Array]:
        """Features ``[1, D]`` and logits ``[1, C]`` of one modality's row."""
        if name == self._stall:
            time.sleep(STALL_S)
        tensor = self.bundle.encoder(name).modality.tensor
        features, logits = self._encoders[name].run([FEATURES, LOGITS], {tensor: row[None]})
        return features, logits

    def encode_all(self, rows: Rows) -> dict[str, tuple[Array, Array]]:
        """Features and logits by modality, zeros where there is no row."""
        classes = self.bundle.classes
        return {
            encoder.modality.name: (
                (np.zeros((1, encoder.features), np.float32), np.zeros((1, classes), np.float32))
                if (row := rows[encoder.modality.name]) is None
                else self.encode(encoder.modality.name, row)
            )
            for encoder in self.bundle.encoders
        }

    def fuse(self, rows: Rows, encoded: Mapping[str, tuple[Array, Array]]) -> Array:
        """Probabilities ``[C]``."""
        names = [modality.name for modality in self.bundle.modalities]
        feeds: dict[str, Array] = {PRESENT: np.array([[rows[name] is not None for name in names]])}
        for name in names:
            feeds[features_input(name)], feeds[logits_input(name)] = encoded[name]
        probabilities: Array = self._fusion.run([PROBABILITIES], feeds)[0][0]
        return probabilities

    def predict(self, data: bytes) -> dict[str, Any]:
        """What a peer answers: the label, and the classes with their probabilities."""
        rows = self.rows(data)
        probabilities = self.fuse(rows, self.encode_all(rows))
        best = int(probabilities.argmax())
        return {
            "label": self.bundle.labels[best],
            "predictions": [
                {"label": self.bundle.labels[index], "probability": float(probabilities[index])}
                for index in np.argsort(-probabilities)[:5]
            ],
            "modalities": {name: "missing" if row is None else "ok" for name, row in rows.items()},
        }


def from_environment() -> Pipeline:
    """The pipeline that ``benchmarks/peers.py`` asks this process for.

    With dimml's decoder it has dimml's options, one thread on the server's one core; otherwise the libraries' own.
    """
    decoder = os.environ[DECODER]
    if decoder == "dimml":
        import cv2

        cv2.setNumThreads(1)
    return Pipeline(
        Path(os.environ[REPOSITORY]),
        os.environ[BUNDLE],
        decoder,
        1 if decoder == "dimml" else None,
        os.environ.get(STALL, ""),
    )
