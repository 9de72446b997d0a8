#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 (4.13.0.92 gave the same when tried) against 4.12.0.88; av 18.1.0 (PyAV), numpy 2.2.6
#
# `cv2.VideoCapture` of a video whose primaries and transfer are tagged as HDR (BT.2020 with PQ or HLG). Expected: the stored
# R'G'B' values, as PyAV's `to_ndarray` gives them and OpenCV up to 4.12 gave them. Seen: OpenCV from 4.13 on converts them, so
# the same file is another picture after an upgrade, and where training and serving have different versions. Video tagged as
# BT.709 is the same everywhere.
#
# Output, of a grey of 128 and of a ramp from black to white:
#   4.12.0 bt709: PyAV 128, OpenCV 128, largest difference in the ramp 0
#   4.12.0 pq: PyAV 128, OpenCV 128, largest difference in the ramp 0
#   4.12.0 hlg: PyAV 128, OpenCV 128, largest difference in the ramp 0
#   5.0.0 bt709: PyAV 128, OpenCV 128, largest difference in the ramp 0
#   5.0.0 pq: PyAV 128, OpenCV 185, largest difference in the ramp 106
#   5.0.0 hlg: PyAV 128, OpenCV 144, largest difference in the ramp 63
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/look.py" <<'PY'
import sys
from fractions import Fraction

import av
import cv2
import numpy as np

#: Transfer, primaries and matrix, as ITU-T H.273 numbers them.
TAGS = {"bt709": (1, 1, 1), "pq": (16, 9, 9), "hlg": (18, 9, 9)}
changed = {}
for name, (transfer, primaries, matrix) in TAGS.items():
    path = f"{sys.argv[1]}/{name}.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 64, "yuv420p"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, primaries, matrix, 1
        luma = np.repeat(np.linspace(16, 235, 256).astype(np.uint8)[None], 64, axis=0)
        planes = np.concatenate([luma, np.full((32, 256), 128, np.uint8)])
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, primaries, matrix, 1
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        theirs = next(container.decode(video=0)).to_ndarray(format="bgr24")
    there, ours = cv2.VideoCapture(path).read()
    assert there
    changed[name] = int(np.abs(theirs.astype(int) - ours).max())
    print(
        f"{cv2.__version__} {name}: PyAV {theirs[32, 128, 0]}, OpenCV {ours[32, 128, 0]}, "
        f"largest difference in the ramp {changed[name]}"
    )
hdr = min(changed["pq"], changed["hlg"])
as_seen = changed["bt709"] <= 2 and (hdr <= 2 if cv2.__version__ == "4.12.0" else hdr >= 30)
sys.exit(0 if as_seen else "this has changed")
PY
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.2.6
for version in 4.12.0.88 5.0.0.93; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    --no-deps --target="$work/$version" "opencv-python-headless==$version"
  PYTHONPATH="$work/$version" "$work/venv/bin/python" "$work/look.py" "$work"
done
