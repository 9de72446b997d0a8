"""Run as a program of its own (its stubs and tritonclient's cannot share a process): is an InferenceService one?

Usage: ``python kserve_check.py FOLDER_OF_THE_KSERVE_PACKAGE``, the document as JSON on stdin; problems on stdout, one a
line. Only KServe's model classes are loaded: the package's own start imports all of its server.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def models(folder: Path) -> Any:
    package = types.ModuleType("kserve")
    package.__path__ = [str(folder / "kserve")]
    sys.modules["kserve"] = package
    sys.path.insert(0, str(folder))
    import kserve.models as found

    return found


def problems(found: Any, value: Any, kind: str, where: str) -> list[str]:
    """Unknown fields, wrong types and missing fields, down to where Kubernetes' own kinds begin."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [p for i, item in enumerate(value) for p in problems(found, item, match[1], f"{where}[{i}]")]
    if match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        return [p for key, item in value.items() for p in problems(found, item, match[1], f"{where}.{key}")]
    if kind in PLAIN:
        fits = isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    model = getattr(found, kind, None)
    if model is None:
        return []
    if not isinstance(value, dict):
        return [f"{where}: not a {kind}"]
    fields = {key: name for name, key in model.attribute_map.items()}
    wrong = [f"{where}.{key}: no such field of {kind}" for key in value if key not in fields]
    known = {fields[key]: item for key, item in value.items() if key in fields}
    try:
        model(**known)
    except ValueError as error:
        wrong.append(f"{where}: {error}")
    for name, item in known.items():
        wrong += problems(found, item, model.openapi_types[name], f"{where}.{model.attribute_map[name]}")
    return wrong


if __name__ == "__main__":
    for problem in problems(models(Path(sys.argv[1])), json.load(sys.stdin), "V1beta1InferenceService", ""):
        print(problem)
