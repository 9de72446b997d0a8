"""The rooms of each package and the imports between them: ``python scripts/import_graph.py [PACKAGE ...]``.

Prints each package's rooms from the bottom up with the rooms that each imports, and every import that goes up or in a
circle; exit code 1 where there is one. ``tests/test_boundaries.py`` holds the same rules.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = {
    "dimml": ROOT / "core" / "dimml",
    "dimml_training": ROOT / "training" / "dimml_training",
    "dimml_export": ROOT / "export" / "dimml_export",
    "dimml_server": ROOT / "server" / "dimml_server",
    "dimml_client": ROOT / "clients" / "dimml_client",
}
#: Rooms from the bottom up: a room imports only rooms of the lines above its own. A name is a folder or a file, the
#: longest that fits a module is its room. Rooms on one line know nothing of each other.
ROOMS: Final[Mapping[str, str]] = {
    "dimml": """
        status  system  validation  digests
        errors  tables
        modality  signing  metrics  prediction  request_parameters
        signal_check  fusion  monitoring.reference  monitoring.accuracy  monitoring.accuracy_estimate  look  explanation
        prediction_sets.unknown
        prediction_sets.thresholds
        bundle
        engine  prediction_sets.answers  repository  spans
        contract
        ensemble
        monitoring  media.track_choice
        media.types
        recording  media.decoders  media.sandbox
        media.workers
        triton
        cli
    """,
    "dimml_training": """
        distributed  models  avdigits
        config
        data  joint.modulation
        lightning  evaluation
        detached  joint  run
        corruptions
        fusion_selection
        rivals
        loop
        corruptions.final
        compare
        final_scoring
        report  recipes
        first_config
        cli
    """,
    "dimml_export": """
        onnx_graph  tensorrt.config  tensorrt.operators  tensorrt.samples
        certainty_graph  encoder_graph  evaluation  model_config  parity  prediction_sets  reference
        reliability_graph  repository_writer  precision
        cross_reliability_graph
        fusion_graph
        tensorrt  export
        summary
        commands
    """,
    "dimml_server": """
        counts  settings
        security  observability  console
        engines
        shadow
        versions
        prediction
        kserve  http.errors  fetch  views
        http.body
        http.middleware
        http.routes
        kserve.http  kserve.grpc
        http.connection
        process
        processes
        local  doctor  triton_server
        cli
    """,
    "dimml_client": """
        transport
        models  client  async_client
        scoring.recording
        scoring.inputs  scoring.table
        scoring.engines
        scoring.run  scoring.report  labelling
        demo
        cli
        scoring
    """,
}


@dataclass(frozen=True, slots=True)
class Package:
    """One import package: its modules by dotted name, and for each the modules of the package that it imports."""

    name: str
    modules: Mapping[str, Path]
    imports: Mapping[str, frozenset[str]]


def read_package(name: str, folder: Path) -> Package:
    """Parse a package's files; imports inside functions and under ``TYPE_CHECKING`` count like all others."""
    modules: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    imports: dict[str, frozenset[str]] = {}
    for module, path in modules.items():
        found = {_module_of(target, modules) for target in imported_names(path)}
        imports[module] = frozenset(target for target in found if target and target != module)
    return Package(name, modules, imports)


def imported_names(path: Path) -> Iterator[str]:
    """Every absolutely imported name in a file, ``from x import y`` as ``x.y``. Raises ValueError for relative ones."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(package: str) -> dict[str, int]:
    """The line of each room in the table, 0 at the bottom."""
    lines = ROOMS[package].split("\n")
    return {room: number for number, line in enumerate(filter(str.strip, lines)) for room in line.split()}


def room_of(module: str, package: str) -> str | None:
    """The room of a module; None for the package itself and for a folder's ``__init__`` above its rooms."""
    name = module.removeprefix(package).lstrip(".")
    rooms = rooms_of(package)
    while name and name not in rooms:
        name = name.rpartition(".")[0]
    return name or None


def back_arrows(package: Package) -> list[str]:
    """Imports of a room from one that is not below it, as ``module -> module``."""
    line = rooms_of(package.name)
    found = []
    for module, targets in package.imports.items():
        for target in targets:
            here, there = room_of(module, package.name), room_of(target, package.name)
            if here and there and here != there and line[there] >= line[here]:
                found.append(f"{module} -> {target}")
    return sorted(found)


def circles(package: Package) -> list[list[str]]:
    """Files that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in package.imports[module]:
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in package.modules:
        if module not in index:
            visit(module)
    return found


def homeless(package: Package) -> list[str]:
    """Modules that stand in no room of the table."""
    return sorted(
        module
        for module, path in package.modules.items()
        if path.stem not in ("__init__", "__main__") and room_of(module, package.name) is None
    )


def _module_of(name: str, modules: Mapping[str, Path]) -> str | None:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def _show(package: Package) -> bool:
    """Print one package; whether all is well."""
    arrows: dict[str, set[str]] = defaultdict(set)
    files: dict[str, int] = defaultdict(int)
    for module, targets in package.imports.items():
        here = room_of(module, package.name)
        files[here or "(package)"] += 1
        arrows[here or "(package)"] |= {room for t in targets if (room := room_of(t, package.name)) and room != here}
    line = rooms_of(package.name)
    print(f"\n{package.name}: {len(package.modules)} files, {len(line)} rooms")
    for room in line:
        uses = ", ".join(sorted(arrows[room], key=lambda r: line[r]))
        print(f"  {line[room]:2} {room:20} {files[room]:3} files" + (f"  -> {uses}" if uses else ""))
    wrong = [f"up or sideways: {arrow}" for arrow in back_arrows(package)]
    wrong += [f"circle: {' -> '.join(circle)}" for circle in circles(package)]
    wrong += [f"no room: {module}" for module in homeless(package)]
    print("\n".join(f"  {fault}" for fault in wrong) or "  no circle, no arrow back")
    return not wrong


def main(names: list[str]) -> int:
    """Show the packages named, by default all."""
    results = [_show(read_package(name, PACKAGES[name])) for name in names or PACKAGES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
