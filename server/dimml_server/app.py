"""The HTTP application: every route over one prediction core."""

from __future__ import annotations

from fastapi import FastAPI

from dimml import __version__
from dimml_server.http import health, models, predict
from dimml_server.http.access import AccessMiddleware
from dimml_server.http.authentication import AuthenticationMiddleware
from dimml_server.http.errors import install_error_handlers
from dimml_server.http.uploads import Uploads
from dimml_server.kserve import http as kserve_http
from dimml_server.metrics import Metrics
from dimml_server.security.guard import Guard
from dimml_server.service import PredictionService
from dimml_server.settings import ServerSettings


def create_app(service: PredictionService, metrics: Metrics, settings: ServerSettings, guard: Guard) -> FastAPI:
    """The application. Loading bundles and closing the service are its caller's."""
    app = FastAPI(
        title="dimml",
        version=__version__,
        description="Multimodal predictions that keep answering when a modality is missing, broken, silent or late.",
    )
    # The last one added is the outermost.
    app.add_middleware(AuthenticationMiddleware, guard=guard, settings=settings)
    app.add_middleware(AccessMiddleware)
    install_error_handlers(app)
    uploads = Uploads(limit=settings.concurrency + settings.queue_length, timeout_s=settings.upload_timeout_s)
    app.include_router(predict.router(service, metrics, settings, uploads))
    app.include_router(models.router(service))
    app.include_router(health.router(service, metrics))
    app.include_router(kserve_http.router(service, metrics, settings, uploads))
    return app
