"""``GET /v1/now``: the last hour of the server's own metrics, and the alerts that they would raise."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, TypeAdapter

from dimml_server.http.body.query import check_query
from dimml_server.http.errors import error_responses
from dimml_server.prediction.service import PredictionService

#: A value for each time; null where there was nothing to compute it from.
Series = list[float | None]


class Quantiles(BaseModel):
    """Estimates from the histogram's buckets, in milliseconds."""

    p50: Series
    p99: Series


class DecodeWorkers(BaseModel):
    """Decoding processes: those that ran, and those lost since the time before."""

    running: Series
    lost: Series


class HeadNow(BaseModel):
    """Means of one head, and its drift from validation; null where it did not vote, or has no reference."""

    certainty: Series
    weight: Series
    drift: Series


class ModalityNow(HeadNow):
    """One modality."""

    ok_share: Series = Field(description="Share of the rows for which it was asked in which it was ok.")
    statuses: dict[str, int] = Field(description="Rows of the hour by status, or status:reason.")


class ModelNow(BaseModel):
    """One bundle version that is served."""

    modalities: dict[str, ModalityNow]
    fused_head: HeadNow | None = Field(description="Null where it has none, or it has not voted yet.")


class AlertNow(BaseModel):
    """An alert of `deploy/prometheus/rules/alerts.yml` that would fire now."""

    name: str
    severity: str
    since: float = Field(description="Unix seconds since when its condition holds, as far as is known.")
    summary: str
    labels: dict[str, str]
    runbook: str = Field(description="Page and heading in this project's docs.")


class Now(BaseModel):
    """The last hour, one value for each of `times`: about the time since the one before it."""

    interval_s: float = Field(description="Time between two samples; the last one is taken for this answer.")
    times: list[float] = Field(description="Unix seconds.")
    requests_per_s: Series
    errors_per_s: Series = Field(description="Requests that the server failed: internal, unavailable, late or refused.")
    rejected_per_s: Series = Field(description="Requests that were at fault themselves.")
    degraded_share: Series = Field(description="Share of the answers that lack a modality.")
    queue: Series = Field(description="Requests that waited.")
    queue_limit: int
    latency_ms: dict[str, Quantiles] = Field(description="Of queue, decode, encode, fuse, and total.")
    decode_workers: DecodeWorkers
    models: dict[str, ModelNow] = Field(description="By name:version.")
    alerts: list[AlertNow]
    not_judged: list[str] = Field(description="Alerts that only Prometheus can judge.")


_NOW: Final = TypeAdapter(dict[str, object])


def router(service: PredictionService) -> APIRouter:
    """Build the route over one service."""
    routes = APIRouter(tags=["health"], dependencies=[Depends(check_query)])

    @routes.get("/v1/now", response_model=Now, summary="The last hour", responses=error_responses(401, 422, 503))
    async def now() -> Response:
        # Its models describe it; checking thousands of numbers by them would cost more than computing these.
        return Response(_NOW.dump_json(await service.whole.now()), media_type="application/json")

    return routes
