"""The HTTP application: every route over one prediction core."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from starlette.middleware.cors import CORSMiddleware

from dimml import __version__
from dimml_server.console.page import page_files
from dimml_server.http.body.limits import Uploads
from dimml_server.http.errors import install_error_handlers
from dimml_server.http.middleware.access import AccessMiddleware
from dimml_server.http.middleware.authentication import API_KEY_HEADER, AuthenticationMiddleware
from dimml_server.http.middleware.direct import DirectMiddleware
from dimml_server.http.middleware.head import HeadMiddleware
from dimml_server.http.middleware.prefix import PrefixMiddleware
from dimml_server.http.middleware.security_headers import SecurityHeadersMiddleware
from dimml_server.http.routes import console, health, inputs, models, now, pages, predict, timeline, traffic
from dimml_server.kserve.http import routes as kserve_http
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import REQUEST_ID_HEADER
from dimml_server.prediction.service import PredictionService
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import ServerSettings

_DESCRIPTION: Final = (
    "Multimodal predictions that keep answering when a modality is missing, broken, silent or late.\n\n"
    # Listing them would double every GET, and generated clients with it.
    "Every path that answers GET answers HEAD as well: the same status and headers, without the body."
)


def create_app(
    service: PredictionService,
    metrics: Metrics,
    settings: ServerSettings,
    guard: Guard,
    concurrency: int | None = None,
) -> FastAPI:
    """Build the application. The caller loads the bundles and closes the service.

    ``concurrency`` is that of all processes of the server, by default that of the settings.
    """
    app = FastAPI(
        title="dimml",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_page else None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        # Our own spans cover HTTP and gRPC alike; FastAPI's would come in addition, as OTEL_… variables say.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        # The middleware checks keys; this only describes them in OpenAPI, and gives the docs page a field for one.
        dependencies=[Security(APIKeyHeader(name=API_KEY_HEADER, auto_error=False))] if guard.closed else None,
    )
    uploads = Uploads(
        limit=(concurrency or settings.concurrency) + settings.queue_length,
        timeout_s=settings.upload_timeout_s,
        folder=service.upload_folder,
        queue_refusal=service.queue_refusal,
        counts=service.counts,
    )
    console_files = page_files() if settings.console else {}
    predict_routes = predict.router(service, metrics, settings, uploads)
    # The last one added is the outermost.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(DirectMiddleware, route=next(r for r in predict_routes.routes if isinstance(r, APIRoute)))
    console_paths = console.open_paths(console_files) if settings.console else frozenset()
    app.add_middleware(AuthenticationMiddleware, guard=guard, settings=settings, page_paths=console_paths)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type", API_KEY_HEADER, REQUEST_ID_HEADER),
            expose_headers=("Retry-After", REQUEST_ID_HEADER),
        )
    app.add_middleware(AccessMiddleware, tracer=service.tracer)
    app.add_middleware(SecurityHeadersMiddleware)
    if settings.root_path:
        app.add_middleware(PrefixMiddleware, root_path=settings.root_path)
    install_error_handlers(app)
    app.include_router(predict_routes)
    app.include_router(inputs.router(service, metrics, settings, uploads))
    app.include_router(timeline.router(service, metrics, settings, uploads))
    app.include_router(models.router(service, settings))
    app.include_router(traffic.router(service, settings, uploads))
    app.include_router(health.router(service))
    app.include_router(now.router(service))
    app.include_router(pages.router(app, docs_page=settings.docs_page, console=bool(console_files)))
    if settings.console:
        app.include_router(console.router(console_files))
    app.include_router(kserve_http.router(service, metrics, settings, uploads))
    return app
