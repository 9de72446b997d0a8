"""Domain errors, free of HTTP and gRPC; each transport maps them in one table of its own.

DimmlError
├── RequestError                 the caller can fix it
│   ├── InvalidParameterError    a named field is wrong
│   ├── InvalidTensorError       a tensor's name, shape, dtype or contents do not fit
│   ├── UnusableMediaError       nothing that was sent can be used; carries a status per modality
│   ├── TooLargeError            a size, length or count limit is exceeded
│   ├── UploadTimeoutError       the body did not arrive in time
│   ├── FetchError               the recording that a URL names could not be fetched
│   ├── NotFoundError            no such bundle, model or version
│   ├── UnauthenticatedError     no API key, or not one of the server's
│   ├── PermissionDeniedError    a call that needs an admin key
│   └── UnsupportedError         a call this server does not offer
├── CapacityError                try again later
│   ├── QueueFullError           no permit within the queue's bound; carries retry_after_s
│   ├── UnavailableError         every encoder failed, or no worker could be had
│   └── DeadlineExceededError    every encoder was late, or the request's time ran out
└── SetupError                   a person at a terminal can fix it
    ├── ConfigurationError       a setting, a config file or a command line option
    ├── BundleError              a bundle does not load: missing file, hash mismatch, bad manifest
    └── DataError                a training manifest or a data file; carries every problem found
        └── UnreadableError      a recording that is not there, or that may not be read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from dimml.status import ModalityStatus


class DimmlError(Exception):
    """Base of all errors meant for a caller. ``str()`` of one is safe to show: nothing internal is in it."""

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        statuses: Mapping[str, ModalityStatus] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: The request field, tensor, file or part at fault, if there is one.
        self.field = field
        #: Status of each modality, where the error is about them; else empty.
        self.statuses: dict[str, ModalityStatus] = dict(statuses or {})


class RequestError(DimmlError):
    """The request is at fault; sending it again unchanged will fail again."""

    code = "invalid_request"


class InvalidParameterError(RequestError):
    """A named parameter is unknown or out of range."""

    code = "invalid_parameter"


class InvalidTensorError(RequestError):
    """A tensor's name, shape, dtype or contents do not fit the model's contract."""

    code = "invalid_tensor"


class UnusableMediaError(RequestError):
    """No requested modality of what was sent can be used."""

    code = "unusable_media"


class TooLargeError(RequestError):
    """A limit on bytes, seconds, pixels, frames or parts is exceeded."""

    code = "too_large"


class EncodingError(RequestError):
    """The body's Content-Encoding is none that the server undoes."""

    code = "unsupported_encoding"


class UploadTimeoutError(RequestError):
    """The body did not arrive in time."""

    code = "upload_timeout"


class FetchError(RequestError):
    """The recording that a URL names could not be fetched. Its text is the same whatever the cause."""

    code = "fetch_failed"


class NotFoundError(RequestError):
    """There is no such bundle, model or version."""

    code = "not_found"


class UnauthenticatedError(RequestError):
    """The call has no API key, or none that the server knows."""

    code = "unauthenticated"


class PermissionDeniedError(RequestError):
    """The API key is known, and the call needs an admin key."""

    code = "permission_denied"


class UnsupportedError(RequestError):
    """The call exists in the protocol, but this server does not offer it."""

    code = "unsupported"


class CapacityError(DimmlError):
    """Nothing is wrong with the request; the server cannot answer it now."""

    code = "capacity"


class QueueFullError(CapacityError):
    """No permit was free within the queue's bound."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BusyError(QueueFullError):
    """Something of which there is one at a time is taken. It says nothing about the queue of predictions."""

    code = "busy"


class UnavailableError(CapacityError):
    """Every encoder failed, or some failed and the rest were late; or no decode worker could be had."""

    code = "unavailable"


class DeadlineExceededError(CapacityError):
    """Every encoder was late, or the request's own deadline passed."""

    code = "deadline_exceeded"


class SetupError(DimmlError):
    """Something on this machine must be put right by a person before the command can run."""

    code = "setup"


class ConfigurationError(SetupError):
    """A setting, a config file or a command line option is wrong."""

    code = "configuration"


class BundleError(SetupError):
    """A bundle does not load: a missing file, a hash mismatch, a manifest that does not validate."""

    code = "bundle"


class DataError(SetupError):
    """A training manifest or data set is not fit for use. ``problems`` lists every one found."""

    code = "data"

    def __init__(self, message: str, *, problems: Sequence[str] = (), field: str | None = None) -> None:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(message + listed, field=field)
        self.problems = list(problems)


class UnreadableError(DataError):
    """A recording cannot be read: it is not there, not a regular file, or not ours to read."""

    code = "unreadable"


def first_line(error: Exception) -> str:
    """Return what another library's error says in its first line, at most 500 characters, for a log or a cause."""
    return str(error).strip().split("\n", 1)[0][:500]
