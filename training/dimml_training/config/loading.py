"""Reading a YAML config with overrides, and expanding variables in its paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dimml.errors import ConfigurationError
from dimml.system.files import StrPath
from dimml.validation import dotted
from dimml_training.config.run import TrainConfig

#: Message for a field that does not exist, most often a misspelt one.
UNKNOWN = "there is no such field here; the config reference in docs/training.md has them all"


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
        found = error.errors(include_url=False)
        # pydantic also reports a list with a bad item as too short, which would mislead.
        inner = {e["loc"][:depth] for e in found for depth in range(len(e["loc"]))}
        faults = [
            f"{dotted(e['loc']) or 'the whole'}: "
            f"{UNKNOWN if e['type'] == 'extra_forbidden' else e['msg'].removeprefix('Value error, ')}"
            for e in found
            if not (e["type"] == "too_short" and e["loc"] in inner)
        ]
        raise ConfigurationError(f"{source}: " + "; ".join(faults), field=faults[0].split(":")[0]) from error


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
