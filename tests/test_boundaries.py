"""Who may import whom, between packages and between the rooms of each, and what importing must not do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from import_graph import PACKAGES, back_arrows, circles, homeless, imported_names, read_package, rooms_of

from support.data import REPOSITORY_ROOT

#: Own packages that each package may import. The client uses the server's local engine, nothing else of it.
MAY_IMPORT_OWN = {
    "dimml": set(),
    "dimml_training": {"dimml"},
    "dimml_export": {
        "dimml",
        "dimml_training.evaluation.heads",
        "dimml_training.loop.other_encoders",
        "dimml_training.models",
        "dimml_training.run.directory",
        "dimml_training.run.prediction_sets",
        "dimml_training.run.votes",
    },
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


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(allowed + ".")


@pytest.mark.parametrize("package", PACKAGES)
def test_components_import_only_what_they_may(package: str) -> None:
    for path in PACKAGES[package].rglob("*.py"):
        for module in imported_names(path):
            top = module.split(".")[0]
            assert top not in MUST_NOT_IMPORT[package], f"{path} imports {module}"
            if top in PACKAGES and top != package:
                assert any(within(module, allowed) for allowed in MAY_IMPORT_OWN[package]), f"{path} imports {module}"


@pytest.mark.parametrize("name", PACKAGES)
def test_rooms_import_only_what_is_below_them(name: str) -> None:
    """The table is ``ROOMS`` in scripts/import_graph.py, which also shows the arrows."""
    package = read_package(name, PACKAGES[name])
    assert back_arrows(package) == []
    assert circles(package) == []
    assert homeless(package) == [], "give it a room in the table, or a better place"
    unused = [room for room in rooms_of(name) if not any(within(m, f"{name}.{room}") for m in package.modules)]
    assert unused == [], "rooms that do not exist"


def test_the_import_graph_sees_circles_and_arrows_back(tmp_path: Path) -> None:
    folder = tmp_path / "dimml"
    (folder / "media" / "decoders").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "status.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dimml.errors import X\n",
        "errors.py": "def late():\n    import dimml.status\n",
        "media/decoders/odd.py": "from dimml import errors, triton\n",
        "triton.py": "",
        "stray.py": "",
    }.items():
        (folder / file).write_text(text)
    package = read_package("dimml", folder)
    assert circles(package) == [["dimml.errors", "dimml.status"]]
    assert back_arrows(package) == ["dimml.media.decoders.odd -> dimml.triton", "dimml.status -> dimml.errors"]
    assert homeless(package) == ["dimml.stray"]


#: Files side by side in one folder at most.
MOST_FILES = 18


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_is_crowded(package: str) -> None:
    counts = Counter(path.parent for path in PACKAGES[package].rglob("*.py") if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {line.split(".")[0] for line in done.stdout.splitlines()}


def test_importing_the_server_loads_no_torch() -> None:
    loaded = modules_after("import dimml_server.process.lifecycle, dimml_server.local")
    # ONNX Runtime writes files and looks up hosts when it is imported (dimml.system.outbound).
    assert not loaded & {"torch", "onnx", "onnxruntime", "transformers"}
    # Wanted only where a setting allows hosts or buckets.
    assert not loaded & {"aiohttp", "awscrt"}


def test_onnxruntime_is_imported_through_one_gate() -> None:
    """``dimml.system.outbound.import_quietly``, which keeps it from sending anything."""
    folders = [*PACKAGES.values(), *(REPOSITORY_ROOT / name for name in ("benchmarks", "scripts", "server"))]
    for folder in folders:
        for path in folder.rglob("*.py"):
            for module in imported_names(path):
                assert not within(module, "onnxruntime"), f"{path} imports {module} by itself"
    callers = set()
    for path in (path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".sh")):
        text = path.read_text()
        # Code within code, too: `python -c`, a shell's heredoc.
        hidden = re.search(r"""^\s*(import|from) onnxruntime|(import_module|__import__)\(["']onnxruntime""", text, re.M)
        assert hidden is None, f"{path}: {hidden}"
        if 'import_quietly("onnxruntime")' in text:
            callers.add(path.name)
    assert {"ort_session.py", "parity.py", "plan_parity.py", "model.py", "latency.py"} <= callers


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
