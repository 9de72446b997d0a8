"""LitServe as its documentation teaches it: an API whose ``predict`` runs in worker processes."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from peer_servers.pipeline import from_environment


class Recordings(litserve.LitAPI):
    """A recording in, an answer out."""

    def setup(self, device: str) -> None:
        """Load the models, in each worker."""
        self.pipeline = from_environment()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes an annotation for a form
        """The upload's bytes."""
        return request["media"].file.read()

    def predict(self, data: bytes) -> dict[str, Any]:
        """The answer."""
        return self.pipeline.predict(data)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer as it is."""
        return output


if __name__ == "__main__":
    workers, port = int(sys.argv[1]), int(sys.argv[2])
    server = litserve.LitServer(Recordings(api_path="/v1/predict"), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
