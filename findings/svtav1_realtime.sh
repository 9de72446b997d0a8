#!/usr/bin/env bash
# av 18.1.0 (PyAV) with its SVT-AV1 4.1.0, numpy 2.2.6; Linux, as root (without the right to set priorities: not seen)
#
# A program encodes one AV1 picture with libsvtav1, closes the file and goes on. Expected: the process is scheduled as before.
# Seen: from the first picture on its main thread is SCHED_FIFO with priority 99, the highest that there is, closing the encoder
# does not undo it, and every process that it starts inherits it. Two such processes at work leave no processor time to
# anything ordinary on a machine of two cores. A program that encodes by PyAV restores it itself:
# `os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))`.
#
# Output:
#   libx264: before (0, 0), closed (0, 0), a child (0, 0)
#   libsvtav1: before (0, 0), closed (1, 99), a child (1, 99)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.2.6
[ "$(id -u)" = 0 ] || { echo "run as root"; exit 1; }
"$work/venv/bin/python" - <<'PY' 2>"$work/log"
import io
import os
import subprocess
import sys

import av
import numpy as np

POLICY = "import os; print((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))"


def policy() -> str:
    return str((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))


seen = {}
for encoder in ("libx264", "libsvtav1"):
    before = policy()
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    child = subprocess.run([sys.executable, "-c", POLICY], capture_output=True, text=True, check=True).stdout.strip()
    seen[encoder] = (before, policy(), child)
    print(f"{encoder}: before {before}, closed {policy()}, a child {child}")
ordinary, real_time = "(0, 0)", "(1, 99)"
expected = {"libx264": (ordinary,) * 3, "libsvtav1": (ordinary, real_time, real_time)}
sys.exit(0 if seen == expected else "this has changed")
PY
