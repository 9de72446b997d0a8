"""Voices that are in no clip, for babble: speech synthesized by eSpeak NG."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import soxr

from dimml.errors import SetupError
from dimml_training.avdigits.speech import Manner, Synthesizer

#: Accent, variant and pitch of each voice: men and women, high and low.
PEOPLE = (
    *(("en-us", "Andy", 45), ("en", "f2", 60), ("en-gb-scotland", "m3", 40), ("en-us-nyc", "linda", 55)),
    *(("en-029", "grandpa", 35), ("en-gb-x-rp", "Annie", 65), ("en-gb-x-gbclan", "m8", 50), ("en-us", "steph", 58)),
)
#: The first sentences of the Harvard list (IEEE 1969), which speech is commonly tested with.
TEXT = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. "
    "It's easy to tell the depth of a well. These days a chicken leg is a rare dish. "
    "Rice is often served in round bowls. The juice of lemons makes fine punch."
)
TIMEOUT_S = 120.0


@lru_cache(maxsize=4)
def other_voices(sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """FP32 ``[8, samples]``, some 14 s each; the same samples in every process.

    Raises SetupError where eSpeak NG cannot speak.
    """
    # In a process of its own: the synthesizer's state cannot be reset, and earlier speech changes later speech.
    command = [sys.executable, "-m", "dimml_training.corruptions.voices", str(sample_rate_hz)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SetupError(f"cannot make the voices of babble: {''.join(last)}; reinstall espeakng-loader")
    voices: npt.NDArray[np.float32] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return voices


def _speak(sample_rate_hz: int) -> npt.NDArray[np.float32]:
    synthesizer = Synthesizer()
    spoken = [
        synthesizer.say(TEXT, Manner(accent, voice, words_per_minute=160, pitch=pitch, pitch_range=50))
        for accent, voice, pitch in PEOPLE
    ]
    resampled = [soxr.resample(sound, synthesizer.sample_rate_hz, sample_rate_hz) for sound in spoken]
    shortest = min(len(sound) for sound in resampled)
    return np.stack([sound[:shortest] for sound in resampled]).astype(np.float32)


if __name__ == "__main__":
    # In memory first: numpy cannot write an array to a pipe, unless PYTHONUNBUFFERED is set.
    spoken_voices = io.BytesIO()
    np.save(spoken_voices, _speak(int(sys.argv[1])), allow_pickle=False)
    sys.stdout.buffer.write(spoken_voices.getbuffer())
