"""Tracing interface of the prediction core; the server implements it with OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from dimml.bundle import Bundle

#: Values never hold content of the media, nor anything that a caller can choose freely.
Attributes = Mapping[str, str | int | bool]


class Span(Protocol):
    """One stage of one request."""

    def set(self, name: str, value: str | int | bool) -> None:
        """Set an attribute."""
        ...

    def fail(self, kind: str) -> None:
        """Mark the stage as failed; ``kind`` is an error's code or a modality's reason."""
        ...


class Spans(Protocol):
    """Makes spans; the span open in this task is the parent of the next."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """Open a span around one stage. A block that raises is marked with the error's code."""
        ...

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        """Return the W3C trace context of the open span, as headers or gRPC metadata; empty if nothing is traced."""
        ...


class NoSpan:
    """A span that is not recorded."""

    def set(self, name: str, value: str | int | bool) -> None:
        """Do nothing."""

    def fail(self, kind: str) -> None:
        """Do nothing."""


class NoSpans:
    """Spans of a server without tracing."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """A span that is not recorded."""
        return _NOBODY_SEES

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        """Return no trace context."""
        return ()


_NOBODY_SEES: Final = nullcontext(NoSpan())
NO_SPANS: Final = NoSpans()


def bundle_attributes(bundle: Bundle) -> dict[str, str | int | bool]:
    """Attributes of every span that concerns a bundle."""
    return {"dimml.bundle": bundle.name, "dimml.version": bundle.version}


def status_attribute(modality: str) -> str:
    """Name of the attribute with a modality's status."""
    return f"dimml.modality.{modality}.status"
