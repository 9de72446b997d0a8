"""Scoring on a server: a bounded number of concurrent requests, each retried when the server says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from dimml.bundle import FUSED_HEAD
from dimml.errors import DimmlError, UnavailableError
from dimml.media.decoders.source import opened
from dimml.media.types import MediaLimits
from dimml.prediction import Prediction
from dimml_client.client import Client
from dimml_client.scoring.engines.decode_request import parts_at_hand
from dimml_client.scoring.engines.protocol import Room, no_limit
from dimml_client.scoring.engines.two_stage_pipeline import Pipeline
from dimml_client.scoring.engines.work_queue import WorkQueue
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.table.rows import scored_row
from dimml_client.scoring.table.schema import ScoredBundle
from dimml_client.transport.credentials import Credentials

#: Time limit of one recording, including all waits that a full server asks for.
PATIENCE_S: Final = 600.0
#: Time within which a server that is gone may come back; after it the run ends, and the same command resumes it.
RETURN_S: Final = 60.0
#: A recording during which the server disappeared this many times is not sent again.
_TRIES: Final = 3
_MANY: Final = 10_000
#: Larger files are not sent.
_MAX_BYTES: Final = MediaLimits().max_bytes


class ServerEngine:
    """Scores on the server at ``url``, over HTTP or gRPC, with ``in_flight`` requests at a time.

    Raises UnavailableError if no server answers, NotFoundError or InvalidParameterError for the model.
    """

    takes_all_at_once = False

    def __init__(
        self,
        url: str,
        model: str | None = None,
        version: int | None = None,
        *,
        in_flight: int,
        credentials: Credentials | None = None,
    ) -> None:
        self._url = url
        self._client = Client(
            url, timeout_s=PATIENCE_S, retries=_MANY, **({} if credentials is None else asdict(credentials))
        )
        self._in_flight = in_flight
        #: Another server may have other limits.
        self.settings: dict[str, Any] = {"engine": "server", "url": url}
        try:
            served = self._client.describe(model, version)
        except DimmlError:
            self._client.close()
            raise
        #: The bundle used for scoring.
        self.bundle = ScoredBundle(
            name=served.name,
            version=served.version,
            labels=tuple(served.labels),
            modalities=tuple(served.modalities),
            fused_head=FUSED_HEAD in served.heads,
            sha256=served.sha256,
            sets=served.sets,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def score(self, recordings: Iterable[Recording], room: Room = no_limit) -> Generator[Scored, None, None]:
        """Yield rows as they arrive. Raises UnavailableError if the server is gone and does not come back."""
        line: Pipeline[None, Scored] = Pipeline(self._in_flight, batch=1, linger_s=0.0)
        work_queue = WorkQueue(recordings)
        gone = threading.Lock()

        def ask() -> None:
            while taken := line.wait_to_get(partial(work_queue.take, 1)):
                (recording,) = taken
                line.wait_for(partial(room, recording.index))
                began = time.perf_counter()
                result = self._score_one(recording, gone)
                ms = 1000.0 * (time.perf_counter() - began)
                line.give(Scored(recording.index, 0, scored_row(recording, self.bundle, result, ms)))

        return line.run(ask, line.nothing_more)

    def _score_one(self, recording: Recording, gone: threading.Lock) -> Prediction | DimmlError:
        for left in reversed(range(_TRIES)):
            try:
                with parts_at_hand(recording, _MAX_BYTES) as parts:
                    for path in parts.values():
                        # Refused as a decoder here would refuse it.
                        with opened(path, _MAX_BYTES):
                            pass
                    return self._client.predict(
                        parts=parts,
                        model=self.bundle.name,
                        version=self.bundle.version,
                        start_s=recording.start_s,
                        end_s=recording.end_s,
                        top_k=len(self.bundle.labels),
                        audio_track=recording.audio_track,
                        video_track=recording.video_track,
                    )
            except UnavailableError as error:
                with gone:
                    here = self._client.ready() or self._comes_back(error)
                if not left or (here and error.statuses):
                    return error
            except DimmlError as error:
                return error
        raise AssertionError("unreachable: the last try returns or raises")

    def _comes_back(self, error: UnavailableError) -> bool:
        end = time.monotonic() + RETURN_S
        while not self._client.ready():
            if time.monotonic() >= end:
                raise UnavailableError(f"{self._url} is gone, and did not come back in {RETURN_S:g} s: {error.message}")
            time.sleep(0.5)
        return True
