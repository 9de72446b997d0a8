#!/usr/bin/env bash
# What the Dockerfile's target `triton` installs, tried outside Docker: the wheel without extras, with constraints, into a
# clean venv; then that what a bundle's models import is there, and that nothing heavy came along. Needs the network.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$work/build" && "$work/build/bin/pip" install --quiet -c "$root/constraints.txt" build
"$work/build/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
wheel=$(ls "$work"/dist/*.whl)
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -c "$root/constraints.txt" "dimml @ file://$wheel"
cp -r "$root/model_repository" "$work/models"
cd "$work"
"$work/venv/bin/python" - <<'PY'
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import dimml
from dimml.repository import bundle_names, load_bundle

heavy = [n for n in ("torch", "onnx", "onnxruntime", "fastapi", "grpc", "tritonclient") if importlib.util.find_spec(n)]
assert not heavy, f"Triton's image must not get {heavy}"
modules = [m.name for m in pkgutil.walk_packages(dimml.__path__, "dimml.") if not m.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
bundles = [load_bundle(Path("models"), name) for name in bundle_names(Path("models"))]
print(f"triton image: {len(modules)} modules of core imported, {len(bundles)} bundle verified, nothing heavy installed")
PY
