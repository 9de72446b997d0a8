"""The prediction core: every transport and the in-process predictor call only this.

It is independent of HTTP and gRPC, and raises only errors of ``dimml.errors``. A transport calls ``check_accepting``
before it reads a body, then does its work on the ``HeldCall`` of ``hold``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dimml.bundle import Bundle
from dimml.errors import DimmlError, QueueFullError, UnavailableError
from dimml.signing import read_public_keys
from dimml_server.counts import Counts, OwnCount
from dimml_server.engines.protocol import ServingEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.tracer import NO_TRACER, Tracer
from dimml_server.prediction.admission import Admission
from dimml_server.prediction.call import HeldCall, Resources
from dimml_server.prediction.decoder import Decoder
from dimml_server.prediction.whole_server import OneProcess, WholeServer
from dimml_server.settings.settings import ServerSettings
from dimml_server.shadow.shadow import Runner, Shadows
from dimml_server.versions.control import ModelControl
from dimml_server.versions.registry import BundleRegistry, ServedModel
from dimml_server.versions.replicate import serve_exactly
from dimml_server.versions.repository_watch import RepositoryWatch
from dimml_server.versions.served import Served
from dimml_server.versions.traffic import Traffic


class PredictionService:
    """Bundles of one repository, ready to predict. Lives in one event loop.

    ``shadow_runner`` makes the runner of a shadow version. ``upload_folder`` is the only folder from which the decoder
    can read files; None means any.
    """

    def __init__(
        self,
        engine: ServingEngine,
        decoder: Decoder,
        metrics: Metrics,
        settings: ServerSettings,
        *,
        shadow_runner: Callable[[Bundle], Runner],
        upload_folder: Path | None = None,
        tracer: Tracer = NO_TRACER,
        counts: Counts = OwnCount,
        whole: WholeServer | None = None,
    ) -> None:
        """``counts`` and ``whole`` are those of a server of several processes, of which this is one."""
        self.upload_folder = upload_folder
        self.counts = counts
        self.tracer = tracer
        self.registry = BundleRegistry()
        self.registry.loading = True
        self.traffic = Traffic(
            self.registry,
            Shadows(shadow_runner, metrics.shadows, settings.shadow_queue),
            splits=settings.splits,
            shadow_versions=settings.shadows,
            file=settings.routing_file,
            writes=whole is None,
        )
        self.control = ModelControl(
            engine,
            self.registry,
            metrics,
            settings.repository,
            traffic=self.traffic,
            signers=read_public_keys(settings.bundle_public_keys),
        )
        self.whole = whole or OneProcess(self.control, self.traffic, metrics)
        #: Whether to take requests: false until warm-up is done and once the server is stopping.
        self.accepting = False
        #: What else ends with the service.
        self.closing = ExitStack()
        self._watching: asyncio.Task[None] | None = None
        self._engine = engine
        self._decoder = decoder
        self._settings = settings
        self._admission = Admission(
            concurrency=settings.concurrency,
            queue_length=settings.queue_length,
            queue_wait_s=settings.queue_wait_s,
            counts=counts,
        )
        self._resources = Resources(
            engine=engine,
            decoder=decoder,
            admission=self._admission,
            registry=self.registry,
            control=self.control,
            traffic=self.traffic,
            metrics=metrics,
            settings=settings,
            tracer=tracer,
            deadlines_s={name: ms / 1000.0 for name, ms in settings.deadlines_ms.items()},
        )
        metrics.limit(in_flight=settings.concurrency, queued=settings.queue_length)
        metrics.watch(
            in_flight=lambda: self._admission.running,
            queued=lambda: self._admission.waiting,
            stray_runs=lambda: engine.stray_runs,
            decode_workers_lost=lambda: decoder.workers_lost,
            decode_workers=lambda: decoder.workers_running,
        )

    async def start(self) -> None:
        """Load and warm up the settings' bundles and the decode workers, then take requests.

        Raises as ``load`` does.
        """
        watch = None
        if self._settings.watch:
            names, interval_s = self._settings.models, self._settings.watch_interval_s
            watch = RepositoryWatch(self.control, self._settings.repository, names, interval_s)
            await watch.begin()
        await self.load()
        self.accepting = True
        if watch is not None:
            self._watching = asyncio.get_running_loop().create_task(watch.run())

    async def load(self, served: Served | None = None) -> None:
        """Load and warm up the settings' bundles, or ``served`` instead, and the decode workers.

        Raises BundleError, or UnavailableError if the decode workers do not start.
        """
        explicit = self._settings.model_control == "explicit"
        if served is None:
            loading = self.control.start(self._settings.models, may_be_empty=explicit)
        else:
            loading = serve_exactly(served, self.control, self.registry, self.traffic)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(loading)
                group.create_task(asyncio.to_thread(self._decoder.warm_up))
        except* DimmlError as errors:
            raise errors.exceptions[0] from None  # Report one problem at a time.
        self.registry.loading = False

    async def close(self) -> None:
        """Take no more requests, and stop all runs."""
        self.accepting = False
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self.traffic.close()
        await self._engine.close()
        self._decoder.close()
        self.closing.close()

    @property
    def ready(self) -> bool:
        """Whether requests are taken and, if bundles are served, at least one of them would answer now."""
        bundles = self.registry.bundles()
        return self.accepting and (not bundles or any(self._engine.ready(bundle) for bundle in bundles))

    def model_ready(self, served: ServedModel) -> bool:
        """Whether this model would answer now."""
        part = served.spec.name if served.spec.role in ("encoder", "fusion") else None
        return self.accepting and self._engine.ready(served.bundle, part)

    def check_accepting(self) -> None:
        """Raise UnavailableError if no requests are taken. Transports call this before they read a body."""
        if not self.accepting:
            raise UnavailableError("the server is starting or stopping; try again")

    def queue_refusal(self) -> QueueFullError | None:
        """Return the error with which a request for a permit would be refused now, or None."""
        return self._admission.refusal()

    def early_refusal(self) -> QueueFullError | None:
        """Return ``queue_refusal`` for a request not yet checked by ``check_accepting``, which takes precedence."""
        return self.queue_refusal() if self.accepting else None

    @contextmanager
    def hold(self, model: str | None, version: int | None, route_key: str | None) -> Iterator[HeldCall]:
        """Route one request, and keep its bundle version in memory for the block, even if it is unloaded meanwhile.

        ``model`` None means the only bundle served, ``version`` None the one that the bundle's split gives to
        ``route_key``. Raises as ``BundleRegistry.bundle`` does.
        """
        route = self.registry.route(model, version, route_key)
        with ExitStack() as uses:
            uses.enter_context(self.control.using(route.bundle))
            yield HeldCall(self._resources, route, uses)
