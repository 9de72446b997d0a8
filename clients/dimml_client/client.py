"""The blocking client, for both transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from dimml.prediction import Prediction
from dimml.request_parameters import Explain
from dimml_client.transport.blocking import run_blocking
from dimml_client.transport.calls import ServerCalls
from dimml_client.transport.request import Media, ModelDescription


class Client(ServerCalls):
    """Predicts recordings on a dimml server, over ``http://host:port``, ``https://…``, ``grpc://host:port`` or ``grpcs://…``.

    ``timeout_s`` bounds one call in total, including retries. A call is retried at most ``retries`` times, and only if
    the server is full (429, RESOURCE_EXHAUSTED) or cannot answer now (503, UNAVAILABLE). ``api_key`` defaults to that
    of ``DIMML_API_KEY``. ``ca`` is a PEM file of authorities to trust instead of the machine's, ``certificate`` and
    ``certificate_key`` the client's own for mutual TLS. Safe to share between threads. Raises ConfigurationError for an
    address, key or file it cannot use.
    """

    _in_event_loop = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self,
        media: Media | None = None,
        *,
        parts: Mapping[str, Media] | None = None,
        model: str | None = None,
        version: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        top_k: int | None = None,
        timeout_ms: float | None = None,
        modalities: Sequence[str] | None = None,
        route_key: str | None = None,
        audio_track: int | str | None = None,
        video_track: int | str | None = None,
        explain: Explain | None = None,
        damage: str | None = None,
        abstain_below: float | None = None,
        max_set_size: int | None = None,
    ) -> Prediction:
        """Predict one recording.

        ``media`` is a path or bytes, read for every modality that has no file of its own in ``parts``. ``model`` may be
        left out if only one bundle is served. ``start_s`` and ``end_s`` are the time range to predict; ``top_k`` how
        many classes to list; ``timeout_ms`` the server's time limit; ``modalities`` those to use. If several versions
        answer, the same ``route_key``, such as a user's id, always gets the same one. ``audio_track`` and
        ``video_track`` name one of several tracks by number or language, or the ``loudest``. ``explain`` has the answer
        explained, ``damage`` has signals damaged before (docs/explaining.md). Where the bundle has prediction sets, the
        answer abstains if it is less probable than ``abstain_below`` or its set has more than ``max_set_size`` labels
        (docs/abstention.md). Over gRPC an answer has no timings, no time range, and no votes of single modalities.

        Raises RequestError (the request is at fault; UnusableMediaError carries a status per modality, and
        UnauthenticatedError means that the server wants another API key) and
        CapacityError (QueueFullError, UnavailableError, DeadlineExceededError: try again later).
        """
        return run_blocking(
            self._predict(
                media,
                parts,
                model=model,
                version=version,
                start_s=start_s,
                end_s=end_s,
                top_k=top_k,
                timeout_ms=timeout_ms,
                modalities=modalities,
                route_key=route_key,
                audio_track=audio_track,
                video_track=video_track,
                explain=explain,
                damage=damage,
                abstain_below=abstain_below,
                max_set_size=max_set_size,
            )
        )

    def describe(self, model: str | None = None, version: int | None = None) -> ModelDescription:
        """Describe a bundle (by default the only one, in its newest version): labels, modalities and heads.

        Raises NotFoundError, InvalidParameterError, CapacityError. Never retried.
        """
        return run_blocking(self._describe(model, version))

    def ready(self) -> bool:
        """Whether the server takes requests now; False if it cannot be reached. Never retried."""
        return run_blocking(self._ready())

    def close(self) -> None:
        """Close connections."""
        run_blocking(self._transport.close())
