"""Environment variables that keep third-party libraries from sending or looking up anything by themselves.

dimml handles recordings of faces and voices, so none of its libraries may contact a host that no setting names. Most
libraries read their switch once, while they are imported, so the switches must be set before the first import.
``dimml.cli.main`` sets them for every command, ``import_quietly`` for programs that use dimml without it. A switch that
is already set is left as it is; `dimml doctor` shows the values in effect.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Final


@dataclass(frozen=True, slots=True)
class Switch:
    """An environment variable that keeps a library from sending or looking up anything by itself."""

    variable: str
    #: Value that dimml sets.
    value: str
    #: pip names of the packages that read it.
    packages: tuple[str, ...]
    #: First version that sends anything; 0 where that has not been looked for.
    since: str
    #: What the library does unless it is set.
    sends: str
    #: Values that stop the library, in lower case; the library takes any other value as consent to send.
    stops: frozenset[str]

    def stopped_by(self, environment: Mapping[str, str]) -> bool:
        """Whether the library sends nothing with these environment variables."""
        return environment.get(self.variable, "").lower() in self.stops


#: docs/security.md, "What leaves this machine", has a row for each.
SWITCHES: Final = (
    Switch(
        variable="ORT_DISABLE_TELEMETRY",
        value="1",
        packages=("onnxruntime", "onnxruntime-gpu"),
        # Seen with the Linux wheels 1.28.0 (nothing) and 1.29.0 to 1.32.0. `disable_telemetry_events()` comes too late:
        # the import itself has made the device id and the event store, and what is in the store is sent.
        since="1.29.0",
        sends="keeps a device id and usage events under the home's cache folder, looks up hosts and sends the events",
        stops=frozenset({"1", "true", "yes", "on"}),
    ),
    Switch(
        variable="RAY_USAGE_STATS_ENABLED",
        value="0",
        packages=("ray",),
        since="1.13.0",
        sends="sends usage statistics of the cluster while it runs",
        stops=frozenset({"0"}),
    ),
    Switch(
        variable="MLFLOW_DISABLE_TELEMETRY",
        value="true",
        packages=("mlflow", "mlflow-skinny"),
        since="3.2.0",
        sends="keeps an installation id under the home's config folder, looks up hosts and sends usage events",
        stops=frozenset({"1", "true"}),
    ),
    Switch(
        variable="HF_HUB_DISABLE_TELEMETRY",
        value="1",
        # hf-xet, which transfers the hub's large files, reads it too.
        packages=("huggingface_hub",),
        since="0.12.0",
        sends="adds usage figures to what it asks the Hugging Face hub for a published model",
        stops=frozenset({"1", "true", "yes", "on"}),
    ),
    Switch(
        variable="DISABLE_SAFETENSORS_CONVERSION",
        value="1",
        packages=("transformers",),
        since="0",
        sends="asks a service on the Hugging Face hub to convert a published model that has no safetensors file",
        stops=frozenset({"1", "true", "y", "yes", "on"}),
    ),
)


def quiet_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` plus every switch that is unset or empty in it."""
    return {**environment, **{one.variable: one.value for one in SWITCHES if not environment.get(one.variable)}}


def switch_values() -> dict[str, str]:
    """Return every switch's value in this process: the user's own, or the default."""
    environment = quiet_environment(os.environ)
    return {one.variable: environment[one.variable] for one in SWITCHES}


def set_quiet_defaults() -> None:
    """Set every switch that is unset or empty, for this process and the processes it starts from now on."""
    os.environ.update(switch_values())


def import_quietly(name: str) -> ModuleType:
    """Import a third-party module after setting the switches; a module already loaded is returned as it is."""
    set_quiet_defaults()
    return importlib.import_module(name)
