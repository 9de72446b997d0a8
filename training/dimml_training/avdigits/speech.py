"""eSpeak NG through ctypes, from the shared library and data of the ``espeakng-loader`` wheel.

The library is one global synthesizer per process, and its state cannot be reset: the phase of the pitch flutter
survives ``espeak_Terminate``. The same calls in the same order in a fresh process give the same samples, so ``make``
gives every voice a process of its own. API: ``espeak-ng/speak_lib.h`` of eSpeak NG 1.52.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import ConfigurationError

FloatArray = npt.NDArray[np.float32]

_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_CHARS_UTF8: Final = 1
_POS_CHARACTER: Final = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_INT16_FULL_SCALE: Final = 32768.0
#: int (*t_espeak_callback)(short *wav, int numsamples, espeak_EVENT *events)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Manner:
    """Accent, voice, speed and pitch of a spoken word. ``pitch`` and ``pitch_range`` are on eSpeak's scale, 0 to 99."""

    accent: str
    voice: str
    words_per_minute: int
    pitch: int
    pitch_range: int


class Synthesizer:
    """The process's eSpeak NG; create one per process. Raises ConfigurationError if it cannot be loaded."""

    def __init__(self) -> None:
        import espeakng_loader

        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise ConfigurationError(f"cannot load eSpeak NG: {error}; reinstall espeakng-loader") from error
        self._chunks: list[npt.NDArray[np.int16]] = []
        # ctypes does not keep the callback alive: this attribute does.
        self._callback = _Callback(self._receive)
        data = str(Path(espeakng_loader.get_data_path()))
        self.sample_rate_hz: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate_hz <= 0:
            raise ConfigurationError(f"eSpeak NG finds no data in {data}; reinstall espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)
        # Initialize seeds the noise of breathy voices from the clock.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def _receive(self, wav: Any, samples: int, events: int | None) -> int:
        if wav and samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (samples,)).copy())
        return 0

    def say(self, text: str, manner: Manner) -> FloatArray:
        """Synthesize mono samples ``[N]`` FP32 at ``sample_rate_hz``, with peak 1 and silence trimmed at both ends.

        Raises ConfigurationError for a voice that eSpeak does not have, or when it gives no sound.
        """
        name = f"{manner.accent}+{manner.voice}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ConfigurationError(f"eSpeak NG has no voice {name!r}")
        for parameter, value in (
            (_RATE, manner.words_per_minute),
            (_PITCH, manner.pitch),
            (_RANGE, manner.pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        utf8 = text.encode() + b"\0"
        self._library.espeak_Synth(utf8, ctypes.c_size_t(len(utf8)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        sound = np.concatenate(self._chunks or [np.zeros(0, np.int16)]).astype(np.float32) / _INT16_FULL_SCALE
        peak = float(np.abs(sound).max(initial=0.0))
        if peak == 0.0:
            raise ConfigurationError(f"eSpeak NG gave no sound for {text!r} in voice {name!r}")
        loud = np.flatnonzero(np.abs(sound) > 0.02 * peak)
        return sound[loud[0] : loud[-1] + 1] / np.float32(peak)
