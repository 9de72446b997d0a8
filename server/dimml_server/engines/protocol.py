"""What the prediction core asks of an engine beyond running models: bundles come and go, and it may be down."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dimml.bundle import Bundle
from dimml.engine import Engine


class ServingEngine(Engine, Protocol):
    """An engine that bundles are loaded into."""

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool) -> None:
        """Make a bundle ready to run, warmed up. Raises BundleError, and then nothing is kept.

        Where not ``must_run`` (the server starts), an engine whose models run elsewhere may find them later.
        """
        ...

    def unload(self, bundle: Bundle) -> None:
        """Let a bundle's models go. Nothing where it is not loaded."""
        ...

    def ready(self, bundle: Bundle, model: str | None = None) -> bool:
        """Whether a model would run now, as far as is known without trying.

        ``model`` is an encoder or the fusion of ``bundle``; without it, the whole: its fusion and at least one encoder.
        """
        ...

    async def close(self) -> None:
        """Stop what still runs."""
        ...

    @property
    def stray_runs(self) -> int:
        """Runs that were told to stop and still go on."""
        ...
