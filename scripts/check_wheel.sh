#!/usr/bin/env bash
# Build the wheel, install it with [serve,client] into a clean venv outside the checkout, serve the demo bundle
# from there and predict a sample clip: what a user of the wheel, and the Dockerfile, do. Needs the network.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
python3 -m venv "$work/build" && "$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -c "$root/constraints.txt" "dimml[serve,client] @ file://$(ls "$work"/dist/*.whl)"
cp -r "$root/model_repository" "$work/models"
cp "$root/samples/clean_three.mp4" "$work/clip.mp4"
cd "$work"
"$work/venv/bin/python" - <<'PY'
import importlib.util as u, sys
assert not any(u.find_spec(n) for n in ("torch", "onnx", "transformers")), "serving must not install torch"
PY
"$work/venv/bin/dimml" serve --repository models --http-port 0 --grpc-port 0 >log 2>&1 &
server=$!
for _ in $(seq 120); do grep -q '^ready ' log && break; kill -0 "$server" || { cat log; exit 1; }; sleep 0.5; done
url=$(sed -n 's/^ready http=\([^ ]*\).*/\1/p' log)
"$work/venv/bin/dimml" predict clip.mp4 --url "http://$url" --json
kill -TERM "$server" && wait "$server"
server=
echo "wheel: installed, served, predicted, stopped with exit 0"
