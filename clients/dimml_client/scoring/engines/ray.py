"""Scoring on a Ray cluster: Ray Data feeds a pool of actors, each of which holds a local engine.

The bundle's files are sent through Ray's object store; recordings are read by the workers. A cluster's nodes only need
dimml installed and access to the recordings.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from dimml.bundle import MANIFEST_NAME, Bundle
from dimml.errors import ConfigurationError, UnavailableError
from dimml.repository import load_bundle, only_bundle
from dimml.system.installation import install_command
from dimml.system.outbound import set_quiet_defaults, switch_values
from dimml_client.scoring.engines.decode_request import WindowOptions, in_process_settings
from dimml_client.scoring.engines.local import LocalEngine
from dimml_client.scoring.engines.protocol import Room, no_limit
from dimml_client.scoring.engines.ray_start import cloud_not_asked
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.table.schema import ScoredBundle

#: Recordings per task: enough to hide the overhead of a task, few enough that a lost worker costs little.
_LEAST, _MOST = 8, 256
#: Minimum number of tasks per worker, so that a slow one at the end delays the run little.
_TASKS_PER_WORKER: Final = 16
#: Rows that a worker sends at a time.
_ROWS: Final = 256


class RayEngine:
    """Scores with ``workers`` actors (None: as many as fit the cluster's cores) of ``cores`` cores each.

    ``address`` is a cluster's, ``auto`` means this machine's; None starts one here while the engine is entered. Raises
    BundleError, and ConfigurationError if Ray is not installed.
    """

    takes_all_at_once = True

    def __init__(
        self,
        repository: Path,
        model: str | None = None,
        version: int | None = None,
        *,
        address: str | None = None,
        workers: int | None = None,
        cores: int = 1,
        machine_cores: int | None = None,
        window: WindowOptions | None = None,
    ) -> None:
        bundle = load_bundle(repository, model or only_bundle(repository), version)
        #: The bundle used for scoring.
        self.bundle = ScoredBundle.of(bundle)
        self._files = _files(bundle, repository)
        self._address = address
        self._workers = workers
        self._cores = cores
        self._machine_cores = machine_cores
        self._window = window
        #: Settings that rows depend on: the same as for a local engine, so that either can continue the other's run.
        self.settings: dict[str, Any] = in_process_settings(window)

    def __enter__(self) -> Self:
        set_quiet_defaults()
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"--engine ray needs ray, which is not installed: {install_command('ray')}", field="--engine"
            ) from error
        options: dict[str, Any] = {"address": self._address, "log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            options = {**options, "address": "local", "include_dashboard": False, "num_cpus": self._machine_cores}
        try:
            with cloud_not_asked():
                ray.init(**options)
        except Exception as error:
            # Ray raises a plain Exception where its processes do not start in time.
            first = str(error).strip().split("\n", 1)[0]
            raise UnavailableError(f"no Ray cluster at {self._address or 'this machine'}: {first}") from error
        import ray.data

        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()

    def score(self, recordings: Iterable[Recording], room: Room = no_limit) -> Generator[Scored, None, None]:
        """Yield rows in order. ``room`` is not used: Ray Data applies backpressure itself.

        Raises UnavailableError if Ray gives up.
        """
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        cluster: Any = ray
        workers = self._workers or max(1, int(cluster.cluster_resources().get("CPU", 1)) // self._cores)
        tables = _tables([_text(one) for one in recordings], workers)
        if not tables:
            return
        # Kept referenced: a restarted actor reads it again.
        files = ray.put(self._files)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        scored = ray.data.from_arrow(tables).map_batches(
            _Worker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers),
            # Ray Data restarts lost actors, and gives their tasks to others.
            num_cpus=self._cores,
            # A cluster that is already running has its own environment.
            runtime_env={"env_vars": switch_values()},
            fn_constructor_args=(
                files,
                _Setup(self.bundle.name, self.bundle.version, self._cores, self._window, Path.cwd()),
            ),
        )
        try:
            batches: Iterator[Any] = iter(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
            for batch in batches:
                for one in batch.to_pylist():
                    yield Scored(one["index"], one["position"], json.loads(one["row"]), one["last"])
        except ray.exceptions.RayError as error:
            first = str(error).strip().split("\n", 1)[0]
            raise UnavailableError(f"Ray gave up: {first}") from error


@dataclass(frozen=True, slots=True)
class _Setup:
    """Settings of every worker; relative paths are resolved against ``folder``, the command's working directory."""

    model: str
    version: int
    cores: int
    window: WindowOptions | None
    folder: Path


class _Worker:
    """One actor: makes the engine once, then scores one table of recordings after another."""

    def __init__(self, files: dict[str, bytes] | Any, setup: _Setup) -> None:
        import ray

        with suppress(OSError):
            os.chdir(setup.folder)
        found: dict[str, bytes] = files if isinstance(files, dict) else ray.get(files)
        self._stack = ExitStack()
        repository = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dimml-bundle-")))
        for name, content in found.items():
            path = repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        engine = LocalEngine(repository, setup.model, setup.version, cores=setup.cores, window=setup.window)
        self._engine = self._stack.enter_context(engine)

    def __call__(self, recordings: pa.Table) -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        for one in self._engine.score(map(_recording, recordings.to_pylist())):
            rows.append(
                {"index": one.index, "position": one.position, "last": one.last, "row": json.dumps(dict(one.row))}
            )
            if len(rows) == _ROWS:
                yield pa.Table.from_pylist(rows, _SCHEMA)
                rows = []
        if rows:
            yield pa.Table.from_pylist(rows, _SCHEMA)


_SCHEMA: Final = pa.schema(
    [("index", pa.int64()), ("position", pa.int64()), ("last", pa.bool_()), ("row", pa.string())]
)


def _recording(row: dict[str, Any]) -> Recording:
    return Recording(**json.loads(row["recording"]))


def _text(recording: Recording) -> str:
    return json.dumps(
        {
            "index": recording.index,
            "id": recording.id,
            "parts": dict(recording.parts),
            "start_s": recording.start_s,
            "end_s": recording.end_s,
            "truth": recording.truth,
            "problem": recording.problem,
            "audio_track": recording.audio_track,
            "video_track": recording.video_track,
        }
    )


def _tables(texts: list[str], workers: int) -> list[pa.Table]:
    size = min(_MOST, max(_LEAST, math.ceil(len(texts) / (workers * _TASKS_PER_WORKER))))
    return [pa.table({"recording": texts[begin : begin + size]}) for begin in range(0, len(texts), size)]


def _files(bundle: Bundle, repository: Path) -> dict[str, bytes]:
    """Read the bundle's files by their path in a repository."""
    manifest = f"{bundle.name}/{bundle.version}/{MANIFEST_NAME}"
    return {name: (repository / name).read_bytes() for name in (*bundle.files, manifest)}
