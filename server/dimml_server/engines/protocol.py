"""Engine interface of the prediction core: beside running models, it loads and unloads bundles, and may be down."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dimml.bundle import Bundle
from dimml.engine import Engine


class ServingEngine(Engine, Protocol):
    """An engine into which bundles are loaded."""

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool) -> None:
        """Load a bundle and warm it up. On failure nothing is kept, and BundleError is raised.

        Unless ``must_run`` (at the server's start), an engine whose models run elsewhere may find them later.
        """
        ...

    def unload(self, bundle: Bundle) -> None:
        """Release a bundle's models. Do nothing if it is not loaded."""
        ...

    def ready(self, bundle: Bundle, model: str | None = None) -> bool:
        """Whether a model would run now, as far as known without trying.

        ``model`` is an encoder or the fusion of ``bundle``; without it, the whole bundle: its fusion and at least one
        encoder.
        """
        ...

    async def close(self) -> None:
        """Stop all runs."""
        ...

    @property
    def stray_runs(self) -> int:
        """Cancelled runs that have not ended yet."""
        ...
