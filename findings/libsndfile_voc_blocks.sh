#!/usr/bin/env bash
# soundfile 0.14.0 with its libsndfile 1.2.2; av 18.1.0 (PyAV, to write the VOC and as the other reader), numpy 2.2.6
#
# 2 s of 16-bit sound, all samples 8000, as a Creative VOC file of several blocks: FFmpeg writes one for each packet. Expected:
# `soundfile.read` gives the samples of all blocks. Seen: it reads on past the end of the first block, and the headers of the
# others are samples too, without an error: a click at the beginning of each, and sound that is longer than it was. A file of one
# block is right.
#
# Output; 16000 samples were written:
#   1 block: soundfile 16000 samples, values [8000]; PyAV 16000 samples, values [8000]
#   16 blocks: soundfile 16030 samples, values [-12286, 7, 8000]; PyAV 16000 samples, values [8000]
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

RATE_HZ, SAMPLES, VALUE = 8000, 16_000, 8000
found = {}
for blocks in (1, 16):
    file, step = io.BytesIO(), SAMPLES // blocks
    with av.open(file, "w", format="voc") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for begin in range(0, SAMPLES, step):
            frame = av.AudioFrame.from_ndarray(np.full((1, step), VALUE, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    theirs = soundfile.read(io.BytesIO(data), dtype="int16")[0]
    with av.open(io.BytesIO(data)) as container:
        right = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    found[blocks] = [(len(samples), np.unique(samples).tolist()) for samples in (theirs, right)]
    said = [f"{count} samples, values {values}" for count, values in found[blocks]]
    print(f"{blocks} block{'s' if blocks > 1 else ''}: soundfile {said[0]}; PyAV {said[1]}")
whole = (SAMPLES, [VALUE])
as_seen = found[1] == [whole, whole] and found[16][1] == whole and found[16][0][0] > SAMPLES
sys.exit(0 if as_seen else "this has changed")
PY
