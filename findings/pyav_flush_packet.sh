#!/usr/bin/env bash
# av 18.1.0 (PyAV; the same was seen with 12.3), numpy 2.2.6
#
# `container.demux()` ends with a flush packet for each stream. Expected: `packet.stream_index` is the index of its stream, as
# with every other packet. Seen: it is 0 for all of them. `packet.stream` is right, so sort packets by `packet.stream.index`.
#
# Output:
#   data packets: stream_index [0, 1], stream.index [0, 1]
#   flush packet of video: stream_index 0, stream.index 0
#   flush packet of audio: stream_index 0, stream.index 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
import io
import sys
from fractions import Fraction

import av
import numpy as np

file = io.BytesIO()
with av.open(file, "w", format="matroska") as container:
    video = container.add_stream("mpeg4", rate=10)
    video.width = video.height = 64
    video.pix_fmt = "yuv420p"
    audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
    for number in range(10):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))

file.seek(0)
data, flush = set(), []
with av.open(file) as container:
    for packet in container.demux():
        if packet.size:
            data.add((packet.stream_index, packet.stream.index))
        else:
            flush.append((packet.stream_index, packet.stream.index))
            name = packet.stream.type
            if len(flush) == 1:
                said, true = (sorted({pair[i] for pair in data}) for i in (0, 1))
                print(f"data packets: stream_index {said}, stream.index {true}")
            print(f"flush packet of {name}: stream_index {packet.stream_index}, stream.index {packet.stream.index}")
sys.exit(0 if data == {(0, 0), (1, 1)} and flush == [(0, 0), (0, 1)] else "this has changed")
PY
