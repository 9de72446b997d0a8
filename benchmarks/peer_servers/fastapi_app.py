"""FastAPI as its tutorial teaches it: a plain function, which it runs in a thread."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, File

from peer_servers.pipeline import from_environment

app = FastAPI()
pipeline = from_environment()


@app.post("/v1/predict")
def predict(media: Annotated[bytes, File()]) -> dict[str, Any]:
    """A recording in, an answer out."""
    return pipeline.predict(media)
