"""Work of ``dimml predict``: one recording after the other, with an answer or an error for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimml.errors import CapacityError, ConfigurationError, RequestError
from dimml.prediction import Prediction
from dimml.repository import only_bundle
from dimml.request_parameters import Explain
from dimml.system.installation import install_command
from dimml_client.client import Client
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.request import MEDIA_PART, gather_parts


@dataclass(frozen=True, slots=True)
class PredictInput:
    """One recording: its displayed name, and its files by part."""

    name: str
    parts: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options that apply to every recording."""

    model: str | None = None
    version: int | None = None
    #: Used by a server only.
    route_key: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    top_k: int | None = None
    audio_track: str | None = None
    video_track: str | None = None
    explain: Explain | None = None
    damage: str | None = None
    abstain_below: float | None = None
    max_set_size: int | None = None


@dataclass(frozen=True, slots=True)
class FileResult:
    """Result of one recording: exactly one of ``prediction`` and ``error`` is set."""

    recording: PredictInput
    prediction: Prediction | None = None
    error: RequestError | CapacityError | None = None

    def as_json(self) -> str:
        """Format as one line: the file, and the answer's fields or ``error``."""
        document: dict[str, Any] = {"file": self.recording.name}
        if self.prediction is not None:
            document |= self.prediction.model_dump(mode="json", exclude=self.prediction.not_asked_for)
        if self.error is not None:
            document["error"] = {
                "code": self.error.code,
                "message": self.error.message,
                "field": self.error.field,
                "modalities": {name: str(status) for name, status in self.error.statuses.items()},
            }
        return json.dumps(document)


Predict = Callable[[PredictInput], Prediction]


def inputs_of(files: Sequence[Path], own_files: Mapping[str, Path]) -> list[PredictInput]:
    """Make one recording per file; ``own_files`` (by modality) belong to the only file, or are used alone."""
    if not own_files:
        return [PredictInput(str(file), {MEDIA_PART: file}) for file in files]
    parts = {**({MEDIA_PART: files[0]} if files else {}), **own_files}
    return [PredictInput(" + ".join(map(str, parts.values())), parts)]


@contextmanager
def remote(url: str, credentials: Credentials, options: PredictOptions) -> Iterator[Predict]:
    """Predict on a server."""
    with Client(
        url,
        api_key=credentials.api_key,
        ca=credentials.ca,
        certificate=credentials.certificate,
        certificate_key=credentials.certificate_key,
    ) as client:
        yield lambda recording: client.predict(
            parts=recording.parts,
            model=options.model,
            version=options.version,
            route_key=options.route_key,
            start_s=options.start_s,
            end_s=options.end_s,
            top_k=options.top_k,
            audio_track=options.audio_track,
            video_track=options.video_track,
            explain=options.explain,
            damage=options.damage,
            abstain_below=options.abstain_below,
            max_set_size=options.max_set_size,
        )


@contextmanager
def local(repository: Path, options: PredictOptions) -> Iterator[Predict]:
    """Predict in this process. Raises SetupError if the repository cannot be served."""
    # Only the newest version is loaded, unless a split makes another one answer.
    splits = {}
    if options.version is not None:
        splits[options.model or only_bundle(repository)] = {options.version: 100.0}
    with ExitStack() as stack:
        try:
            from dimml_server.local import LocalPredictor

            # ONNX Runtime is imported here, not above. Recordings are predicted one after another.
            predictor = stack.enter_context(LocalPredictor(repository, splits=splits, decode_workers=1))
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"--repository needs {error.name}, which is not installed: {install_command('serve')}",
                field="--repository",
            ) from error
        yield lambda job: predictor.predict(
            gather_parts(None, job.parts),
            model=options.model,
            version=options.version,
            start_s=options.start_s,
            end_s=options.end_s,
            top_k=options.top_k,
            audio_track=options.audio_track,
            video_track=options.video_track,
            explain=options.explain,
            damage=options.damage,
            abstain_below=options.abstain_below,
            max_set_size=options.max_set_size,
        )


def answers(predict: Predict, inputs: Sequence[PredictInput]) -> Iterator[FileResult]:
    """Yield a result per recording, in order; a failure affects no other recording."""
    for recording in inputs:
        try:
            yield FileResult(recording, prediction=predict(recording))
        except (RequestError, CapacityError) as error:
            yield FileResult(recording, error=error)
