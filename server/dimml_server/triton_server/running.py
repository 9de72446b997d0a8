"""``dimml triton`` as a process: install, start, wait until ready, watch, stop, and clean up."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from dimml.bundle import MANIFEST_NAME, read_bundle
from dimml.contract import model_specs
from dimml.errors import BundleError, ConfigurationError, SetupError
from dimml.repository import bundle_versions
from dimml_server.process.listeners import authority
from dimml_server.triton_server.failure import explain, is_stuck
from dimml_server.triton_server.host import check_host
from dimml_server.triton_server.installation import install
from dimml_server.triton_server.options import ModelControl, TritonOptions
from dimml_server.triton_server.ports import choose_ports
from dimml_server.triton_server.process import TritonProcess, server_command
from dimml_server.triton_server.run_folder import RunFolder
from dimml_server.triton_server.shared_memory import RunName, clear_left_over
from dimml_server.triton_server.watchdog import POLL_S, Watchdog

#: Generous, since large models load slowly; a server that is silent for longer is stuck.
START_LIMIT_S: Final = 600.0
_READY_POLL_S: Final = 0.1


def run_triton(options: TritonOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises SetupError with a one-line message if the server cannot be installed, does not start, or ends by itself.
    """
    models = models_to_load(options)
    host = check_host()
    choose_ports(options)  # A port in use is reported before anything is installed.
    installation = install(options.home, host, _say)
    folders = Path(tempfile.gettempdir())
    clear_left_over(folders)
    with ExitStack() as stack:
        stopping = stack.enter_context(_stop_signals())
        name = RunName()
        stack.callback(name.close)
        run = RunFolder(folders / name.prefix, installation)
        stack.callback(run.close)
        ports = choose_ports(options)
        command = server_command(options, models, ports, installation=installation, run=run, name=name)
        process = TritonProcess(command, run.environment(installation, dict(os.environ)), name.descriptor)
        stack.callback(process.stop)
        http = authority(options.host, ports.http)
        if _wait_ready(process, http, stopping):
            process.show_log()
            grpc, metrics = authority(options.host, ports.grpc), authority(options.host, ports.metrics)
            print(f"ready http={http} grpc={grpc} metrics={metrics}", flush=True)
            backends = frozenset(folder.name for folder in run.backends.iterdir())
            watchdog = Watchdog(process.pid, http, backends, _say)
            _watch(process, watchdog if options.model_control is ModelControl.EXPLICIT else None, stopping)


def models_to_load(options: TritonOptions) -> list[str]:
    """Return Triton's names of the requested models; empty for all. Raises SetupError."""
    repository = options.repository
    if not repository.is_dir():
        raise BundleError(f"model repository {repository} is not a folder")
    found = []
    for name in options.models:
        if not (repository / name).is_dir():
            raise ConfigurationError(f"--model {name}: {repository} has no such bundle or model", field="model")
        versions = bundle_versions(repository, name)
        if versions:
            bundle = read_bundle(repository / name / str(versions[-1]) / MANIFEST_NAME)
            found += [spec.name for spec in model_specs(bundle)]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def _wait_ready(process: TritonProcess, http: str, stopping: threading.Event) -> bool:
    """Wait until all models are loaded; return False if a signal came first. Raises SetupError if the server fails."""
    waited = 0.0
    while not stopping.wait(_READY_POLL_S):
        if process.exit_code is not None or is_stuck(process.log):
            code = process.stop()
            raise SetupError(explain(process.log, code))
        if _is_ready(http):
            return True
        waited += _READY_POLL_S
        if waited > START_LIMIT_S:
            raise SetupError(
                f"Triton was not ready within {START_LIMIT_S:g} s: {(process.log or ['it said nothing'])[-1]}"
            )
    return False


def _is_ready(http: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _watch(process: TritonProcess, watchdog: Watchdog | None, stopping: threading.Event) -> None:
    while not stopping.wait(POLL_S):
        code = process.exit_code
        if code is not None:
            raise SetupError(explain(process.log, code))
        if watchdog is not None:
            watchdog.look()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Return an event that SIGTERM and SIGINT set."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
