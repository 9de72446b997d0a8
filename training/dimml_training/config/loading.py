"""Reading a YAML config with overrides, and expanding variables in its paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dimml.errors import ConfigurationError
from dimml.system.files import StrPath
from dimml.validation import FieldFault, dotted
from dimml_training.config.run import TrainConfig
from dimml_training.config.suggestions import locate, meant

#: Message for a field that does not exist, most often a misspelt one.
UNKNOWN = "there is no such field here"


def expand_path(text: str) -> Path:
    """Expand ``~``, ``$VAR``, ``${VAR}`` and ``${VAR:-default}`` in a config's path and make it absolute.

    Raises ConfigurationError naming a variable that is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["bare"]
        found = os.environ.get(name) or match["default"]
        if found is None:
            raise ConfigurationError(f"{text}: the environment variable {name} is not set", field=name)
        return found

    pattern = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}|\$(?P<bare>\w+)"
    return Path(re.sub(pattern, value, text)).expanduser().resolve()


def load_config(path: StrPath, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML config and apply ``key.sub=value`` overrides (values are YAML; list items by index).

    Raises ConfigurationError that names the file and the field.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} must hold a mapping of fields")
    for override in overrides:
        _override(document, override)
    return parse_config(document, str(path))


def parse_config(document: Any, source: str) -> TrainConfig:
    """Validate a config. Raises ConfigurationError that names ``source`` and every faulty field."""
    try:
        return TrainConfig.model_validate(document)
    except ValidationError as error:
        faults = _faults(error)
        listed = "; ".join(f"{field or 'the whole'}: {message}" for field, message in faults)
        raise ConfigurationError(f"{source}: {listed}", field=faults[0].field or "the whole") from error


def _faults(error: ValidationError) -> list[FieldFault]:
    """Every fault by the path that the config's author wrote, with the field that a misspelt one was meant to be."""
    found = error.errors(include_url=False)
    # pydantic also reports a list with a bad item as too short, which would mislead.
    inner = {e["loc"][:depth] for e in found for depth in range(len(e["loc"]))}
    faults: list[FieldFault] = []
    missing: list[FieldFault] = []
    misspelt: set[str] = set()
    for e in found:
        if e["type"] == "too_short" and e["loc"] in inner:
            continue
        path, section = locate(TrainConfig, e["loc"])
        fault = FieldFault(dotted(path), e["msg"].removeprefix("Value error, "))
        if e["type"] == "extra_forbidden":
            names = meant(TrainConfig, section, str(path[-1]))
            misspelt |= {dotted([*path[:-1], name]) for name in names[:1]}
            fault = fault._replace(message=f"{UNKNOWN}; {_way_out(names, section)}")
        elif e["type"] == "missing":
            missing.append(fault)
        faults.append(fault)
    # What is missing because it is misspelt is one fault.
    return [fault for fault in faults if fault not in missing or fault.field not in misspelt]


def _way_out(names: Sequence[str], section: type[BaseModel] | None) -> str:
    if names:
        return f"did you mean {' or '.join(names)}?"
    fields = "" if section is None else f"those here are {', '.join(section.model_fields)}; "
    return f"{fields}the config reference in docs/training.md has them all"


def with_fields(config: TrainConfig, fields: Mapping[str, Any], source: str) -> TrainConfig:
    """Return the config with fields replaced, by dotted name (list items by index).

    Raises ConfigurationError that names ``source`` and the field.
    """
    document = config.model_dump(mode="json")
    for key, value in fields.items():
        _place(document, key, value, f"{source}: {key}")
    return parse_config(document, source)


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--set {override}: write it as key=value, for example stage1.epochs=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {override}: the value is not YAML", field=key) from error
    _place(document, key, value, f"--set {override}")


def _place(document: dict[str, Any], key: str, value: Any, source: str) -> None:
    *parents, last = key.split(".")
    here: Any = document
    try:
        for part in parents:
            if isinstance(here, list):
                here = here[int(part)]
            else:
                if here.get(part) is None:  # a section that was left out
                    here[part] = {}
                here = here[part]
        here[int(last) if isinstance(here, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{source}: there is no such place in the config", field=key) from error
