#!/usr/bin/env bash
# soundfile 0.14.0 with its libsndfile 1.2.2; av 18.1.0 (PyAV, to write the files and as the other reader), numpy 2.2.6
#
# A tone of amplitude 0.1 in 32-bit floats at 96 kHz. FFmpeg writes it as WAVE_FORMAT_EXTENSIBLE with the subformat of IEEE floats.
# Expected: the same samples from WAV and from W64 (Sony Wave64, for large files). Seen: libsndfile takes the floats of W64 for
# 32-bit integers: noise of 0.7, without an error. WAV is right.
#
# Output:
#   wav: soundfile says FLOAT, 96000 samples, peak 0.100; PyAV 96000 samples, peak 0.100
#   w64: soundfile says PCM_32, 96000 samples, peak 0.720; PyAV 96000 samples, peak 0.100
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

RATE_HZ, AMPLITUDE = 96_000, 0.1
tone = (AMPLITUDE * np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)
right = True
for form in ("wav", "w64"):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("pcm_f32le", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    kind = soundfile.info(io.BytesIO(data)).subtype
    theirs = soundfile.read(io.BytesIO(data))[0]
    with av.open(io.BytesIO(data)) as container:
        other = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    peaks = [float(np.abs(samples).max()) for samples in (theirs, other)]
    print(f"{form}: soundfile says {kind}, {len(theirs)} samples, peak {peaks[0]:.3f}; PyAV {len(other)} samples, peak {peaks[1]:.3f}")
    right &= abs(peaks[1] - AMPLITUDE) < 1e-3
    right &= (kind, abs(peaks[0] - AMPLITUDE) < 1e-3) == (("FLOAT", True) if form == "wav" else ("PCM_32", False))
sys.exit(0 if right else "this has changed")
PY
