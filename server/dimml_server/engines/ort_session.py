"""One ONNX Runtime session of one model: creation, warm-up, runs in threads."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVarTuple

import numpy as np

from dimml.contract import NUMPY_TYPES, ModelSpec
from dimml.engine import EngineError
from dimml.errors import BundleError, ConfigurationError
from dimml.system.cpu import exact_int8_sums
from dimml.system.outbound import import_quietly
from dimml.system.run_threads import RunThreads
from dimml_server.engines.graph_cache import GraphCache
from dimml_server.engines.runs import Outputs, Run, StrayRuns, Tensors
from dimml_server.settings.settings import DEVICE_PATTERN

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

#: A first run compiles and allocates, on some devices for long.
WARM_UP_LIMIT_S = 120.0

_ORT_ERROR, _ORT_FATAL = 3, 4  # ONNX Runtime's log severities.
_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


#: Of every session. A spinning thread takes its core from the other encoders and from decoding.
_ENTRIES = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
_OF_A_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
#: A provider's name, or its name and options.
Provider = str | tuple[str, dict[str, str]]


def providers(device: str) -> list[Provider]:
    """Return ONNX Runtime's providers for a ``device`` setting, with the number of the GPU if it names one.

    Raises ConfigurationError if the setting is none, or the providers are missing.
    """
    if not re.fullmatch(DEVICE_PATTERN, device):
        raise ConfigurationError(f"device {device!r} is none of auto, cpu, cuda[:N] and tensorrt[:N]", field="device")
    available = import_quietly("onnxruntime").get_available_providers()
    if device == "auto":
        device = "cuda" if "CUDAExecutionProvider" in available else "cpu"
    kind, _, number = device.partition(":")
    wanted = _PROVIDERS[kind]
    if wanted[0] not in available:
        raise ConfigurationError(
            f"device {device!r}: the installed onnxruntime has no {wanted[0]}; "
            "install dimml[serve-gpu], or choose --device cpu",
            field="device",
        )
    return [(name, {"device_id": number}) if number and name in _OF_A_GPU else name for name in wanted]


def provider_name(provider: Provider) -> str:
    """Name of a provider that may have options."""
    return provider if isinstance(provider, str) else provider[0]


class ModelSession:
    """Runs of one model. At most ``concurrency`` are awaited at a time, which ``Admission`` guarantees.

    A run whose awaiter is cancelled is asked to stop, and is a stray run until it does. Beyond ``max_stray_runs`` of
    them runs of the model are refused at once, so stalled runs take a bounded number of threads; and so they are while
    ``StrayRuns`` says that it stalls.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        providers: list[Provider],
        threads: int,
        concurrency: int,
        max_stray_runs: int,
        late_after_s: float | None = None,
        graphs: GraphCache | None = None,
        content: str | None = None,
        keep_rows: int | None = None,
    ) -> None:
        """``graphs`` keeps the optimised graph of the model whose files have the digest ``content``.

        A run of more than ``keep_rows`` rows on the processor gives the memory back that it took; None: none does.
        ``late_after_s`` is the time that a run is given as a rule.
        """
        self._spec = spec
        self._outputs = [output.name for output in spec.outputs]
        # Of a GPU's memory this has not been tried.
        self._keep_rows = keep_rows if providers == ["CPUExecutionProvider"] else None
        # No more runs than this can be in progress: a run starts only while stray runs are below their bound. The
        # fusion, with stray runs of its own, may be run in the thread of an encoder.
        self._threads = RunThreads(f"dimml-{spec.name}", concurrency + 2 * max_stray_runs)
        self._strays = StrayRuns(max_stray_runs, late_after_s)
        self._ort = import_quietly("onnxruntime")
        try:
            self._session = self._make(path, providers, threads, graphs, content)
        except Exception as error:
            logger.debug("loading %s", path, exc_info=True)
            raise BundleError(f"model {spec.name}: ONNX Runtime cannot load {path}", field=spec.name) from error
        self._check_provider(providers[0])
        self._check_interface()

    @property
    def stray_runs(self) -> int:
        """Cancelled runs that have not ended yet."""
        return len(self._strays.going)

    async def warm_up(self) -> None:
        """Run the model on zeros: on one row, then on as many as it keeps memory for.

        The smallest goes first: what an arena takes for its first run it may keep for good. The largest runs twice,
        since ONNX Runtime plans memory at the first run of a shape and takes it at the second. Raises BundleError if a
        run fails or does not end.
        """
        most = self._keep_rows or 1
        try:
            async with asyncio.timeout(WARM_UP_LIMIT_S):
                for rows in (1, most, most) if most > 1 else (1,):
                    await self.run(
                        {i.name: np.zeros((rows, *i.dims), NUMPY_TYPES[i.datatype]) for i in self._spec.inputs}
                    )
        except TimeoutError:
            raise BundleError(f"model {self._spec.name} does not end its first run in {WARM_UP_LIMIT_S:g} s") from None
        except EngineError as error:
            raise BundleError(f"model {self._spec.name} does not run: {error}") from error

    def check_room(self) -> None:
        """Raise EngineError if there are as many stray runs as there may be, or the model stalls."""
        self._strays.check_room()

    def check_strays(self) -> None:
        """Raise EngineError if there are as many stray runs as there may be."""
        self._strays.check_number()

    async def run(self, tensors: Tensors) -> Outputs:
        """Run the model; return outputs by name. Cancelling asks the run to stop, without waiting.

        Raises EngineError.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outputs] = loop.create_future()

        def finish(outcome: Outputs | EngineError) -> None:
            run.end()
            if done.cancelled():
                return
            if isinstance(outcome, EngineError):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

        run = self.start(tensors, lambda outcome: self.tell(loop, finish, outcome))
        try:
            return await done
        except asyncio.CancelledError:
            run.stop()
            raise

    def start(
        self,
        tensors: Tensors | Callable[[], Tensors],
        ended: Callable[[Outputs | EngineError], None],
        *,
        rows: int | None = None,
    ) -> Run:
        """Run the model in a thread, which then calls ``ended``; it must not raise.

        ``rows`` are those of ``tensors``, where the thread makes them.
        """
        if rows is None:
            rows = 1 if callable(tensors) else len(next(iter(tensors.values())))
        run = self.new_run(rows)

        def work() -> Callable[[], None]:
            outcome = run.here(tensors)
            return lambda: ended(outcome)

        self._threads.submit(work)
        return run

    def new_run(self, rows: int = 1) -> Run:
        """Make a run of so many rows that is to be made in the caller's thread."""
        options = self._ort.RunOptions()
        options.log_severity_level = _ORT_FATAL  # Errors of a run are logged here, once.
        if self._keep_rows is not None and rows > self._keep_rows:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return Run(self._session, self._outputs, options, self._strays)

    def tell(self, loop: asyncio.AbstractEventLoop, call: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Have a thread's news heard in the event loop, if that is still there."""
        try:
            loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            logger.debug("a run of %s outlived the server", self._spec.name)

    def close(self) -> None:
        """Ask runs in progress to stop, and let the threads end."""
        for run in self._strays.going:
            run.stop()
        self._threads.close()

    def _make(
        self, path: Path, providers: list[Provider], threads: int, graphs: GraphCache | None, content: str | None
    ) -> Any:
        ort, entries = self._ort, _ENTRIES | exact_int8_sums()
        level = ort.GraphOptimizationLevel

        def make(model: Path | bytes, written: Path | None) -> Any:
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = _ORT_ERROR
            for name, value in entries.items():
                options.add_session_config_entry(name, value)
            # A kept graph has had all of it; a second time would cost the time again.
            kept = isinstance(model, bytes)
            options.graph_optimization_level = level.ORT_DISABLE_ALL if kept else level.ORT_ENABLE_ALL
            if written is not None:
                options.optimized_model_filepath = str(written)
            return ort.InferenceSession(model, options, providers=providers)

        # What a GPU's providers compile cannot be written, and their graphs have not been tried.
        if graphs is None or content is None or providers != ["CPUExecutionProvider"]:
            return make(path, None)
        key: dict[str, object] = {"content": content, "onnxruntime": [ort.__version__, ort.get_build_info()]}
        key |= {"providers": providers, "level": "all", "threads": threads, "entries": entries}
        return graphs.session(key, path, make)

    def _check_provider(self, wanted: Provider) -> None:
        # ONNX Runtime goes on with the CPU where a GPU cannot be used.
        name, used = provider_name(wanted), self._session.get_providers()
        if name in used:
            return
        if isinstance(wanted, str):
            logger.warning("model %s runs with %s: ONNX Runtime cannot use %s here", self._spec.name, used[0], name)
            return
        raise BundleError(
            f"model {self._spec.name}: ONNX Runtime cannot use {name} on GPU {wanted[1]['device_id']}; is there such a "
            "GPU among those of CUDA_VISIBLE_DEVICES (nvidia-smi -L)? `dimml doctor` checks the rest",
            field="device",
        )

    def _check_interface(self) -> None:
        for what, specs, found in (
            ("input", self._spec.inputs, {i.name for i in self._session.get_inputs()}),
            ("output", self._spec.outputs, {o.name for o in self._session.get_outputs()}),
        ):
            for wanted in specs:
                if wanted.name not in found:
                    raise BundleError(f"model {self._spec.name} has no {what} {wanted.name}; it has {sorted(found)}")
