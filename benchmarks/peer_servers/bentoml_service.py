"""BentoML as its documentation teaches it: a service whose API takes a file's path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml

from peer_servers.pipeline import from_environment


@bentoml.service(workers=int(os.environ.get("PEER_WORKERS", "1")), traffic={"timeout": 60})
class Recordings:
    """A recording in, an answer out."""

    def __init__(self) -> None:
        """Load the models, in each worker."""
        self.pipeline = from_environment()

    @bentoml.api(route="/v1/predict")
    def predict(self, media: Path) -> dict[str, Any]:
        """The answer."""
        return self.pipeline.predict(media.read_bytes())
