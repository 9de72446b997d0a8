"""Sources of settings other than flags, a TOML file and the environment; and printing of settings."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from dimml.errors import ConfigurationError

#: Variables with our prefix that are not settings of the server: the client's key, and the data of tests and tools.
_OTHER_VARIABLES: Final = frozenset({"DIMML_API_KEY", "DIMML_DATA", "DIMML_TEST_DATA"})
#: Variables that Kubernetes sets in every pod for a Service whose name begins with "dimml".
_OF_A_SERVICE: Final = re.compile(r".*_(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")
_LINK: Final = re.compile(r"(tcp|udp|sctp)://.*")
MASK: Final = "***"


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file. Raises ConfigurationError naming the file and the line."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"cannot read settings file {path}: {error.strerror}", field="config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {path} is not TOML: {error}", field="config") from error


def check_variables(environment: Mapping[str, str], prefix: str, known: Collection[str]) -> None:
    """Raise ConfigurationError for a variable with our prefix that is not a setting: it would silently be ignored."""
    for variable, value in environment.items():
        upper = variable.upper()
        name = upper.removeprefix(prefix).lower()
        if not upper.startswith(prefix) or name in known or upper in _OTHER_VARIABLES:
            continue
        if _OF_A_SERVICE.fullmatch(upper) or (upper.endswith("_PORT") and _LINK.fullmatch(value)):
            continue
        raise unknown_setting(name, known, f"environment variable {variable}: ")


def unknown_setting(name: str, known: Collection[str], where: str = "") -> ConfigurationError:
    """Build the error for an unknown setting, with the closest known name."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "see docs/settings.md"
    return ConfigurationError(f"{where}there is no setting {name!r}; {hint}", field=name)


def pairs_of(value: object, between: str, within: str) -> object:
    """Parse a text such as ``a=1,b=2`` into a dictionary; return anything else as it is."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition(within) for pair in value.split(between) if pair.strip()]
    return {name.strip(): item.strip() for name, _, item in pairs}


def as_toml(settings: BaseModel, masked: Collection[str]) -> str:
    """Format every setting as in a settings file, with its description; values of ``masked`` are hidden."""
    blocks = []
    for name, value in settings.model_dump(mode="json").items():
        description = type(settings).model_fields[name].description
        if value is None:
            line = f"# {name} ="
        elif name in masked and value:
            # A masked list still shows its length.
            line = f"{name} = {_toml([MASK] * len(value) if isinstance(value, list) else MASK)}"
        else:
            line = f"{name} = {_toml(value)}"
        blocks.append(f"# {description}\n{line}\n")
    return "\n".join(blocks)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        # TOML has no null: what is not set is left out.
        pairs = ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings (except for DEL, which JSON does not escape), numbers and booleans are valid TOML.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
