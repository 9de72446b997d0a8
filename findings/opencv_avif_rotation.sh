#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93; pillow 13.0.0 (to write the files and as the other reader), numpy 2.2.6
#
# A picture of 32x16, red at the left, that is to be shown turned clockwise by a quarter: red at the top. `cv2.imdecode` turns
# pictures upright unless IMREAD_IGNORE_ORIENTATION is given. Expected: 16 wide and 32 high from every format. Seen: AVIF, whose
# rotation is a property of the picture that readers have to apply (`irot`), is given as it is stored: a photo lies on its side.
#
# Output:
#   JPEG: OpenCV 16x32, red at the top; Pillow 16x32, red at the top
#   PNG: OpenCV 16x32, red at the top; Pillow 16x32, red at the top
#   WEBP: OpenCV 16x32, red at the top; Pillow 16x32, red at the top
#   AVIF: OpenCV 32x16, red at the left; Pillow 16x32, red at the top
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 opencv-python-headless==5.0.0.93 pillow==13.0.0
"$work/venv/bin/python" - <<'PY'
import io
import sys

import cv2
import numpy as np
from PIL import Image, ImageOps

QUARTER_CLOCKWISE = 6


def look(rgb: np.ndarray) -> str:
    """Size, and on which side red is."""
    height, width = rgb.shape[:2]
    top, left = rgb[2, width // 2], rgb[height // 2, 2]
    across = abs(int(top[0]) - int(rgb[-3, width // 2, 0])) > 128
    return f"{width}x{height}, red {'at the top' if across and top[0] > 128 else 'at the left' if left[0] > 128 else '?'}"


stored = Image.new("RGB", (32, 16))
stored.paste((255, 0, 0), (0, 0, 16, 16))
seen = {}
for form in ("JPEG", "PNG", "WEBP", "AVIF"):
    tags = Image.Exif()
    tags[0x0112] = QUARTER_CLOCKWISE
    file = io.BytesIO()
    stored.save(file, form, exif=tags, quality=95)
    data = file.getvalue()
    ours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    seen[form] = look(cv2.cvtColor(ours, cv2.COLOR_BGR2RGB)), look(np.asarray(right))
    print(f"{form}: OpenCV {seen[form][0]}; Pillow {seen[form][1]}")
upright, lying = "16x32, red at the top", "32x16, red at the left"
expected = {form: (lying if form == "AVIF" else upright, upright) for form in seen}
sys.exit(0 if seen == expected else "this has changed")
PY
