"""``/health/live``, ``/health/ready`` and ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dimml.errors import UnavailableError
from dimml_server.http.errors import error_responses
from dimml_server.observability.metrics import CONTENT_TYPE
from dimml_server.prediction.service import PredictionService


def router(service: PredictionService) -> APIRouter:
    """Build the routes over one service."""
    routes = APIRouter(tags=["health"])

    @routes.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get(
        "/health/ready",
        summary="Whether requests are taken",
        responses=error_responses(503),
    )
    async def ready() -> dict[str, str]:
        if not service.ready:
            raise UnavailableError("not ready: the server is starting or stopping, or no bundle has a model that runs")
        return {"status": "ready"}

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape() -> Response:
        return Response(await service.whole.exposition(), media_type=CONTENT_TYPE)

    return routes
