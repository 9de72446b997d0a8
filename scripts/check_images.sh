#!/usr/bin/env bash
# Build the images `serve` and `triton`, run the first as docs/deploy.md and deploy/compose.yaml do (its user, read-only
# root, no capabilities) and without any network, ask it over HTTP and gRPC, stop it, and look at what is in it.
#
# With a Docker engine running, the images are built on it, from their real bases. Without one, an engine of its own is
# started for the time (Debian's docker.io, own folders, no bridge, no firewall rules), and a Debian bookworm made by
# debootstrap, with Debian's Python 3.11 and pip, stands in for both bases: for Triton's it has no Triton.
#
# Needs root, git, debootstrap and docker.io where no engine runs, the checkout's .venv (`make demo`), the network.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
limit=480000000
docker=docker engine=
export DOCKER_BUILDKIT=1
say() { printf '%s\n' "$*"; }
fail() { printf 'check_images: %s\n' "$*" >&2; exit 1; }

cleanup() {
  for name in dimml-check dimml-check-base; do $docker rm -f $name >/dev/null 2>&1 || true; done
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  else
    $docker rmi dimml-check:serve dimml-check:triton >/dev/null 2>&1 || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT

bases() { sed -n 's/^FROM \([^ ]*:[^ ]*\) AS .*/\1/p' "$root/Dockerfile" | sort -u; }

start_engine() {
  command -v dockerd >/dev/null && command -v debootstrap >/dev/null || fail "no Docker engine runs, and none can be" \
    "started: RUNLEVEL=1 apt-get install --no-install-recommends docker.io debootstrap"
  docker=$(dirname "$(command -v dockerd)")/docker
  [ -x "$docker" ] || docker=/usr/bin/docker # the client of that engine: a newer one wants buildx
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
    --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$work/engine.log" 2>&1 &
  engine=$!
  for _ in $(seq 60); do $docker info >/dev/null 2>&1 && return; kill -0 $engine || break; sleep 0.5; done
  tail -5 "$work/engine.log" >&2
  fail "the engine did not start"
}

# Like the official image: no bytecode, and in Python's own no mark that pip must not install. Triton's has that mark.
make_bases() {
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv,python-is-python3 \
    bookworm "$work/base" >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log" >&2; fail "debootstrap"; }
  rm -rf "$work/base/var/cache/apt/archives" "$work/base/var/lib/apt/lists"
  install -d "$work/base/var/cache/apt/archives/partial" "$work/base/var/lib/apt/lists/partial"
  cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/" # whom this machine trusts, pip there trusts
  find "$work/base" -name __pycache__ -prune -exec rm -r {} +
  for base in $(bases); do
    case $base in
      python:*) tar -C "$work/base" --exclude=EXTERNALLY-MANAGED -c . ;;
      *) tar -C "$work/base" -c . ;;
    esac | $docker import - "$base" >/dev/null
    say "stand-in for $base: Debian bookworm, $(cat "$work/base/etc/debian_version"), Debian's Python 3.11"
  done
}

build() { # TARGET TAG
  $docker build --network host --progress plain --target "$1" --tag "$2" "$work/context" >"$work/build.log" 2>&1 ||
    { tail -25 "$work/build.log" >&2; fail "target $1 does not build"; }
}

if $docker info >/dev/null 2>&1; then say "engine: one that runs already, with its bases"; else start_engine; make_bases; fi
say "engine: Docker $($docker version --format '{{.Server.Version}}')"
mkdir "$work/context"
(cd "$root" && git ls-files -z | tar --null -T - -c) | tar -C "$work/context" -x
build serve dimml-check:serve
build triton dimml-check:triton
say "built: serve, triton"

size() { $docker image inspect --format '{{.Size}}' "$1"; }
python_base=$(bases | grep '^python:')
above=$(($(size dimml-check:serve) - $(size "$python_base")))
say "serve: $((above / 1000000)) MB above its base of $(($(size "$python_base") / 1000000)) MB, at most $((limit / 1000000))"
[ $above -le $limit ] || fail "the image is larger than it may be"
for pair in "dimml-check-base $python_base" "dimml-check dimml-check:serve"; do
  set -- $pair
  $docker create --name "$1" --network none --entrypoint python3 "$2" >/dev/null
  $docker export "$1" >"$work/$1.tar"
  $docker rm "$1" >/dev/null
done
python3 "$root/scripts/image_contents.py" "$work/dimml-check-base.tar" "$work/dimml-check.tar" || fail "needless files"
rm "$work"/*.tar

confined=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network none)
$docker run --detach --name dimml-check "${confined[@]}" --memory 4g dimml-check:serve >/dev/null
logs() { $docker logs dimml-check 2>&1; }
state() { $docker inspect --format "{{.State.$1}}" dimml-check; }
for _ in $(seq 120); do
  logs | grep -q '^ready ' && break
  [ "$(state Running)" = true ] || { logs >&2; fail "the server ended"; }
  sleep 0.5
done
pid=$(state Pid)
grep -q '^Uid:\s10001\s10001\s10001\s10001$' "/proc/$pid/status" || fail "the server is not user 10001"
grep -q '^CapBnd:\s0*$' "/proc/$pid/status" || fail "the server could have capabilities"
awk '$2 == "/" && $4 ~ /^ro,/ {found = 1} END {exit !found}' "/proc/$pid/mounts" ||
  fail "the root is not read-only"
logs | grep -o 'decode workers: enforced: .*' || fail "the sandbox is not enforced"
# Docker's filter is on the server; a decode worker has its own on top, where it is not only said to.
filters() { sed -n 's/^Seccomp_filters:\s*//p' "/proc/$1/status"; }
for worker in $(pgrep -P "$pid"); do
  [ "$(filters "$worker")" -gt "$(filters "$pid")" ] || fail "process $worker has no seccomp filter of its own"
done
say "running: pid $pid, user 10001, read-only root, no capabilities, $(pgrep -c -P "$pid") workers with a filter more"

for url in http://127.0.0.1:8000 grpc://127.0.0.1:8001; do
  nsenter --target "$pid" --net "$root/.venv/bin/dimml" predict --url $url --json \
    "$root/samples/clean_three.mp4" "$root/samples/no_sound.mp4" "$root/samples/no_picture.mp4" >"$work/answers"
  python3 - "$root/samples/samples.csv" "$work/answers" $url <<'PY'
import csv, json, sys
from pathlib import Path

truth = {row["file"]: row["label"] for row in csv.DictReader(Path(sys.argv[1]).open())}
for line in Path(sys.argv[2]).read_text().splitlines():
    answer = json.loads(line)
    name = Path(answer["file"]).name
    statuses = {modality: got["status"] for modality, got in answer["modalities"].items()}
    assert answer["label"] == truth[name], (name, answer["label"])
    assert answer["degraded"] == (name != "clean_three.mp4"), name
    print(f"{sys.argv[3]}: {name} is {answer['label']}, {statuses}")
PY
done

for _ in $(seq 60); do [ "$(state Health.Status)" = healthy ] && break; sleep 1; done
[ "$(state Health.Status)" = healthy ] || fail "Docker's health check says $(state Health.Status)"
# That anybody may ask is meant to be said; nothing else is worth a warning.
! logs | grep -E 'WARNING|ERROR|Traceback|\[[WE]:onnxruntime' | grep -v 'everybody who reaches' || fail "warnings"
began=$(date +%s%N)
$docker stop dimml-check >/dev/null
took=$((($(date +%s%N) - began) / 1000000))
[ "$(state ExitCode)" = 0 ] || { logs | tail -5 >&2; fail "stopped with exit $(state ExitCode)"; }
say "healthy; no warnings but that no keys are set; docker stop: exit 0 after $took ms"

$docker run --rm "${confined[@]}" --volume "$work/context/model_repository:/models:ro" --interactive \
  dimml-check:triton python3 - <<'PY'
import importlib
import importlib.util
import os
import pkgutil
from pathlib import Path

import dimml
from dimml.repository import bundle_names, load_bundle

assert os.getuid() == 10001
heavy = [n for n in ("torch", "onnx", "onnxruntime", "fastapi", "grpc", "tritonclient") if importlib.util.find_spec(n)]
assert not heavy, f"Triton's image must not get {heavy}"
modules = [m.name for m in pkgutil.walk_packages(dimml.__path__, "dimml.") if not m.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
bundles = [load_bundle(Path("/models"), name) for name in bundle_names(Path("/models"))]
print(f"triton: {len(modules)} modules of core imported, {len(bundles)} bundle verified, nothing heavy installed")
PY
say "images: built, served, asked, stopped"
