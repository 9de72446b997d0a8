#!/usr/bin/env bash
# soundfile 0.14.0 with its libsndfile 1.2.2; av 18.1.0 (PyAV, to write the MP3 and as the other reader), numpy 2.2.6
#
# 10 s of sound as a variable-rate MP3 without a Xing frame, which is optional. Expected: `soundfile.read` gives all of it. Seen:
# the length that libsndfile states follows the rate of the beginning, and reading stops there without an error. Where the
# beginning is loud (a high rate) three quarters are missing; where it is silent, `info` states twice what is there. A constant
# rate is right but for the frame that `info` counts too many.
#
# Output, in samples; 441000 were encoded:
#   constant rate: info 443384, read 442368, PyAV 442368
#   variable, quiet first: info 860377, read 442368, PyAV 442368
#   variable, loud first: info 107665, read 107665, PyAV 442368
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.2.6 soundfile==0.14.0
"$work/venv/bin/python" - <<'PY'
import io
import sys

import av
import numpy as np
import soundfile

RATE_HZ, SAMPLES = 44_100, 441_000
CONSTANT, VARIABLE = {"b": "128000"}, {"flags": "+qscale", "global_quality": "236"}
loud = 0.3 * np.sin(2 * np.pi * 440 * np.arange(SAMPLES // 2) / RATE_HZ)
loud += 0.1 * np.random.default_rng(0).standard_normal(SAMPLES // 2)
quiet = np.zeros(SAMPLES // 2)


def lengths(sound: np.ndarray, options: dict[str, str]) -> tuple[int, int, int]:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", options=options)
        samples = (sound * 32767).clip(-32767, 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    stated, read = soundfile.info(io.BytesIO(data)).frames, len(soundfile.read(io.BytesIO(data))[0])
    with av.open(io.BytesIO(data)) as container:
        return stated, read, sum(frame.samples for frame in container.decode(audio=0))


found = {}
for name, parts, options in (
    ("constant rate", (quiet, loud), CONSTANT),
    ("variable, quiet first", (quiet, loud), VARIABLE),
    ("variable, loud first", (loud, quiet), VARIABLE),
):
    found[name] = stated, read, decoded = lengths(np.concatenate(parts), options)
    print(f"{name}: info {stated}, read {read}, PyAV {decoded}")
whole = all(abs(decoded - SAMPLES) < 5000 for _, _, decoded in found.values())
as_seen = (
    abs(found["constant rate"][1] - SAMPLES) < 5000
    and found["variable, quiet first"][0] > 1.5 * SAMPLES
    and found["variable, loud first"][1] < 0.5 * SAMPLES
)
sys.exit(0 if whole and as_seen else "this has changed")
PY
