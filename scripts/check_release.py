"""Build sdist and wheel, and try both in clean environments: ``python scripts/check_release.py [PYTHON ...]``.

For every interpreter (default: the one that runs this) a wheel built from the sdist is installed with
``[serve,client]`` and the versions of ``constraints.txt``, and must run ``dimml demo`` with nothing of the checkout at
hand. Prints what took how long; exits with 1 at the first step that fails. ``--keep DIR`` keeps the two files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path, **environment: str) -> float:
    """Run a command; return how many seconds it took. Shows its output and exits where it fails."""
    began = time.monotonic()
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return time.monotonic() - began


def build(work: Path) -> tuple[Path, Path]:
    """Build the console, the sdist from the checkout, and the wheel from the sdist alone."""
    took_s = run("make", "console", cwd=ROOT)
    took_s += run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT, cwd=work)
    (sdist,), (wheel,) = (work / "dist").glob("*.tar.gz"), (work / "dist").glob("*.whl")
    size = {path.name: path.stat().st_size / 1e6 for path in (sdist, wheel)}
    print(f"built in {took_s:.0f} s: " + ", ".join(f"{name} {mb:.1f} MB" for name, mb in size.items()))
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """Check that the wheel has every tracked file of the packages, the demo and the console, and the sdist the docs."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    if missing := {"Makefile", "docs/index.md", "docs/conf.py", "scripts/check_release.py"} - held:
        sys.exit(f"the sdist lacks {sorted(missing)[0]}")
    listed = subprocess.run(
        ["git", "ls-files", "core", "training/dimml_training", "export", "server/dimml_server", "clients"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = {name.partition("/")[2] for name in listed if "/dimml" in name}
    demo = subprocess.run(
        ["git", "ls-files", "model_repository", "samples"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted |= {f"dimml_client/demo/{name}" for name in demo}
    wanted |= {f"dimml_server/console/static/{name}" for name in ("index.html", "THIRD_PARTY_LICENSES.md")}
    missing = wanted - set(zipfile.ZipFile(wheel).namelist())
    if missing:
        sys.exit(f"the wheel lacks {len(missing)} files, as {sorted(missing)[0]}")
    print(f"the wheel has all {len(wanted)} files")


def try_it(python: str, wheel: Path, work: Path) -> None:
    """Install the wheel in a clean environment and run the demo from there."""
    environment = work / f"environment-{Path(python).name}"
    run(python, "-m", "venv", environment, cwd=work)
    install = [environment / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    installed_s = run(*install, f"dimml[serve,client] @ {wheel.as_uri()}", cwd=work)
    code = "import importlib.util as u; assert not any(map(u.find_spec, ('torch', 'onnx', 'transformers')))"
    run(environment / "bin" / "python", "-c", code, cwd=work)
    with socket.socket() as http, socket.socket() as grpc:
        for probe in (http, grpc):
            probe.bind(("127.0.0.1", 0))
        ports = {"DEMO_HTTP_PORT": str(http.getsockname()[1]), "DEMO_GRPC_PORT": str(grpc.getsockname()[1])}
    demo_s = run(environment / "bin" / "dimml", "demo", cwd=work, **ports)
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version}: installed in {installed_s:.0f} s, every answer of the demo as expected in {demo_s:.0f} s")
    shutil.rmtree(environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="*", default=[sys.executable], help="interpreters, such as python3.12")
    parser.add_argument("--keep", type=Path, help="where to put sdist and wheel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dimml-release-") as temporary:
        work = Path(temporary)
        sdist, wheel = build(work)
        check_contents(sdist, wheel)
        for python in arguments.python:
            try_it(python, wheel, work)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                shutil.copy(path, arguments.keep)


if __name__ == "__main__":
    main()
