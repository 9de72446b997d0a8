"""``GET /v1/models``: what is served, and what each bundle takes."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from dimml.bundle import Bundle
from dimml.fusion import FusionSpec
from dimml.modality import Modality
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import error_responses
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.traffic_split import WHOLE_PERCENT
from dimml_server.views.card import ModelCard, build_card


class SetsSummary(BaseModel):
    """What the answers' prediction sets promise, and when answers abstain unless a request says otherwise."""

    coverage: float = Field(
        description="Share of answers whose set holds the true label, on average over recordings like those it was "
        "calibrated on; not under drift."
    )
    abstain_below: float | None
    max_set_size: int | None
    false_alarms: float | None = Field(
        description="Largest share of answers to known classes taken for unknown; null where there is no such check."
    )


class ModelSummary(BaseModel):
    """One bundle version that is served."""

    name: str
    version: int
    labels: list[str]
    modalities: list[Modality]
    heads: list[str] = Field(description="Heads that vote: the modalities, and 'fused' if the bundle has that head.")
    clip_s: float = Field(description="Seconds of media that one answer covers.")
    description: str
    created: str
    precision: str = Field(description="Arithmetic of its encoders: fp32, fp16 or int8.")
    sha256: str = Field(description="SHA-256 of the manifest, and thereby of every file.")
    default: bool = Field(description="Whether it is the version used if a request names none.")
    share_percent: float = Field(description="Its share of the predictions that name no version.")
    shadow: bool = Field(description="Whether it gets a copy of requests that other versions answered.")
    prediction_sets: SetsSummary | None = Field(
        default=None, description="Of its answers' prediction sets; null where it has none."
    )


class ModelDetail(ModelSummary):
    """A bundle version with its fusion settings and its evaluation."""

    fusion: FusionSpec
    deadlines_ms: dict[str, float] = Field(description="The bundle's time limit of each modality's encoder.")
    metrics: dict[str, object] = Field(description="Metrics of validation and test, as exported.")
    card: ModelCard


class ModelList(BaseModel):
    """All bundle versions that are served, by name, then version."""

    models: list[ModelSummary]


def _summary(registry: BundleRegistry, bundle: Bundle) -> dict[str, object]:
    routing, default = registry.routing(bundle.name), registry.default(bundle.name)
    return {
        "default": bundle.version == default,
        "share_percent": (routing.split or {default: WHOLE_PERCENT}).get(bundle.version, 0.0),
        "shadow": bundle.version == routing.shadow,
        "name": bundle.name,
        "version": bundle.version,
        "labels": list(bundle.labels),
        "modalities": list(bundle.modalities),
        "heads": list(bundle.heads),
        "clip_s": bundle.clip_s,
        "description": bundle.description,
        "created": bundle.created,
        "precision": bundle.precision,
        "sha256": bundle.sha256,
        "prediction_sets": None if bundle.prediction_sets is None else bundle.prediction_sets.summary(),
    }


def router(service: PredictionService, settings: ServerSettings) -> APIRouter:
    """Build the routes over one service."""
    routes = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(check_query)])

    @routes.get("", summary="List the bundles that are served", responses=error_responses(422, 503))
    async def list_models() -> ModelList:
        registry = service.registry
        registry.check_loaded()
        return ModelList(models=[ModelSummary.model_validate(_summary(registry, b)) for b in registry.bundles()])

    @routes.get("/{name}", summary="Describe one bundle", responses=error_responses(404, 422, 503))
    async def describe_model(name: str, version: int | None = None) -> ModelDetail:
        bundle = service.registry.bundle(name, version)
        deadlines_ms = {encoder.modality.name: encoder.deadline_ms for encoder in bundle.encoders}
        return ModelDetail.model_validate(
            {
                **_summary(service.registry, bundle),
                "fusion": bundle.fusion,
                "deadlines_ms": deadlines_ms,
                "metrics": bundle.metrics,
                "card": build_card(bundle, settings.repository, checked=bool(settings.bundle_public_keys)),
            }
        )

    return routes
