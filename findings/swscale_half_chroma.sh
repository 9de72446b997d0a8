#!/usr/bin/env bash
# av 18.1.0 (PyAV, with FFmpeg 8's swscale), numpy 2.2.6
#
# A picture of yuv420p whose colour changes evenly from left to right is made smaller and RGB in one step, 64x64 to 16x16, so
# that every pixel of the result has chroma samples of its own to be made of. Expected: 16 colours in a row. Seen: 8, each
# twice, with every algorithm, since swscale computes chroma for every second pixel of RGB by default. With the flag
# FULL_CHR_H_INT there are 16.
#
# Output:
#   AREA: 8 colours in a row of 16
#   BILINEAR: 8 colours in a row of 16
#   BICUBIC: 8 colours in a row of 16
#   AREA | FULL_CHR_H_INT: 16 colours in a row of 16
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
import sys

import av
import numpy as np
from av.video.reformatter import Interpolation

luma = np.full((64, 64), 128, np.uint8)
chroma = np.tile(np.linspace(60, 200, 32).round().astype(np.uint8), (32, 1))
planes = np.concatenate([luma.reshape(-1), chroma.reshape(-1), 255 - chroma.reshape(-1)]).reshape(96, 64)
frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
found = []
for name, flags in (
    ("AREA", Interpolation.AREA),
    ("BILINEAR", Interpolation.BILINEAR),
    ("BICUBIC", Interpolation.BICUBIC),
    ("AREA | FULL_CHR_H_INT", Interpolation.AREA | Interpolation.FULL_CHR_H_INT),
):
    row = frame.reformat(width=16, height=16, format="rgb24", interpolation=flags).to_ndarray()[8]
    found.append(len({tuple(pixel) for pixel in row.tolist()}))
    print(f"{name}: {found[-1]} colours in a row of 16")
sys.exit(0 if found == [8, 8, 8, 16] else "this has changed")
PY
