"""Who may import whom (design, section 2), and what importing must not do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT

PACKAGES = {
    "dimml": REPOSITORY_ROOT / "core" / "dimml",
    "dimml_training": REPOSITORY_ROOT / "training" / "dimml_training",
    "dimml_export": REPOSITORY_ROOT / "export" / "dimml_export",
    "dimml_server": REPOSITORY_ROOT / "server" / "dimml_server",
    "dimml_client": REPOSITORY_ROOT / "clients" / "dimml_client",
}
#: Own packages that each package may import. The client uses the server's local engine, nothing else of it.
MAY_IMPORT_OWN = {
    "dimml": set(),
    "dimml_training": {"dimml"},
    "dimml_export": {"dimml", "dimml_training.models", "dimml_training.run.directory", "dimml_training.run.votes"},
    "dimml_server": {"dimml"},
    "dimml_client": {"dimml", "dimml_server.local"},
}
#: Third-party packages that a package must not import, at any depth of its own source.
MUST_NOT_IMPORT = {
    "dimml": {"torch", "onnxruntime", "onnx", "fastapi", "grpc", "tritonclient"},
    "dimml_training": {"onnxruntime", "fastapi", "grpc", "tritonclient"},
    "dimml_export": {"fastapi"},
    "dimml_server": {"torch", "onnx", "transformers", "pytorch_lightning"},
    "dimml_client": {"torch", "onnxruntime", "fastapi"},
}


def imported_modules(package: Path) -> Iterator[tuple[Path, str]]:
    """Every absolutely imported module in a package's files, ``from x import y`` also as ``x.y``."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(allowed + ".")


@pytest.mark.parametrize("package", PACKAGES)
def test_components_import_only_what_they_may(package: str) -> None:
    for path, module in imported_modules(PACKAGES[package]):
        top = module.split(".")[0]
        assert top not in MUST_NOT_IMPORT[package], f"{path} imports {module}"
        if top in PACKAGES and top != package:
            assert any(within(module, allowed) for allowed in MAY_IMPORT_OWN[package]), f"{path} imports {module}"


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {line.split(".")[0] for line in done.stdout.splitlines()}


def test_importing_the_server_loads_no_torch() -> None:
    loaded = modules_after("import dimml_server.process.lifecycle, dimml_server.local")
    # ONNX Runtime writes files and looks up hosts when it is imported (dimml.system.outbound).
    assert not loaded & {"torch", "onnx", "onnxruntime", "transformers"}


def test_onnxruntime_is_imported_through_one_gate() -> None:
    """``dimml.system.outbound.import_quietly``, which keeps it from sending anything."""
    folders = [*PACKAGES.values(), *(REPOSITORY_ROOT / name for name in ("benchmarks", "scripts", "server"))]
    for folder in folders:
        for path, module in imported_modules(folder):
            assert not within(module, "onnxruntime"), f"{path} imports {module} by itself"
    callers = set()
    for path in (path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".sh")):
        text = path.read_text()
        # Code within code, too: `python -c`, a shell's heredoc.
        hidden = re.search(r"""^\s*(import|from) onnxruntime|(import_module|__import__)\(["']onnxruntime""", text, re.M)
        assert hidden is None, f"{path}: {hidden}"
        if 'import_quietly("onnxruntime")' in text:
            callers.add(path.name)
    assert {"session.py", "parity.py", "plan_parity.py", "model.py", "latency.py"} <= callers


def test_importing_the_client_loads_neither_torch_nor_onnxruntime() -> None:
    assert not modules_after("import dimml_client") & {"torch", "onnxruntime", "fastapi"}


def test_help_loads_no_heavy_library() -> None:
    loaded = modules_after("from dimml.cli import main; main(['--help'])")
    assert not loaded & {"torch", "onnxruntime", "fastapi", "grpc", "tritonclient", "transformers"}


def test_no_folder_of_ours_passes_for_a_package() -> None:
    """An editable install puts every component folder on sys.path: a folder ``triton`` there breaks torch.compile."""
    names = ["triton", "onnxruntime", "torch", "onnx", "tensorrt", "ray", "grpc", "kserve", "server", "training"]
    code = (
        "import importlib.util as u, json\n"
        f"specs = {{n: u.find_spec(n) for n in {names}}}\n"
        "print(json.dumps({n: [s.origin or '', *(s.submodule_search_locations or [])] for n, s in specs.items() if s}))"
    )
    # -P: what stands on the path is then the install's doing, not the working directory's.
    found = json.loads(subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True).stdout)
    environment = Path(sys.prefix).resolve()
    for name, places in found.items():
        for place in (Path(p).resolve() for p in places if p):
            ours = place.is_relative_to(REPOSITORY_ROOT) and not place.is_relative_to(environment)
            assert not ours, f"importing {name!r} finds {place}"
