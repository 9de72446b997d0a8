"""Final families of sound, on a clip's FP32 ``[samples]``; each takes the severity, a generator and the sampling rate.

Noise levels are signal-to-noise ratios of mean powers over the row, in dB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import soxr

from dimml.errors import DataError

Samples = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
SoundFamily = Callable[[Samples, float, np.random.Generator, int], npt.NDArray[Any]]

#: Major chords and the relative minor of a common progression (I V vi IV), in semitones above the key.
PROGRESSION: Final = ((0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12))
#: Major pentatonic scale, from which the melody is drawn.
SCALE: Final = (0, 2, 4, 7, 9, 12, 14, 16)
PACKET_S: Final = 0.02
#: Mean length of a burst of lost packets.
BURST_PACKETS: Final = 3.0
#: The lowest rate of AMR narrowband (3GPP TS 26.071), and its sampling rate.
AMR_BITS_PER_S, AMR_RATE_HZ = 4750, 8000


def music(signal: Samples, snr_db: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """A tune on top: chords of a common progression and a plucked melody, in a random key and tempo."""
    return add(signal, tune(len(signal), rng, rate_hz), snr_db)


def tune(samples: int, rng: np.random.Generator, rate_hz: int) -> Doubles:
    """Synthesise music of a random key (A2 to G#3) and tempo (90 to 170 beats a minute); it starts within a bar."""
    key_hz = 110.0 * 2.0 ** (rng.integers(12) / 12.0)
    beat_s = 60.0 / rng.uniform(90.0, 170.0)
    seconds = samples / rate_hz
    first = rng.uniform(0.0, 4.0) * beat_s
    sound = np.zeros(samples)
    for beat in range(int((first + seconds) / beat_s) + 1):
        start = beat * beat_s - first
        chord = PROGRESSION[(beat // 2) % len(PROGRESSION)]
        if beat % 2 == 0:
            for step in chord:
                tone = key_hz * 2.0 ** (step / 12.0)
                _note(sound, rate_hz, tone, start_s=start, length_s=2.0 * beat_s, loud=0.5, decay=1.5)
        for half in (0.0, 0.5):
            step = int(rng.choice(SCALE))
            tone = 4.0 * key_hz * 2.0 ** (step / 12.0)
            _note(sound, rate_hz, tone, start_s=start + half * beat_s, length_s=beat_s, loud=0.7, decay=6.0)
    return sound


def packet_loss(signal: Samples, share: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Packets of 20 ms lost in bursts, ``share`` of all in the mean, and concealed (``conceal``)."""
    packets = -(-len(signal) // round(PACKET_S * rate_hz))
    # Gilbert's model: a chain of good and bad, bad for BURST_PACKETS in the mean and for `share` of the time.
    enter, leave = share / (1.0 - share) / BURST_PACKETS, 1.0 / BURST_PACKETS
    bad = bool(rng.random() < share)
    lost = np.zeros(packets, np.bool_)
    for packet in range(packets):
        lost[packet] = bad
        bad = bool(rng.random() < (1.0 - leave if bad else enter))
    if not lost.any():
        lost[rng.integers(packets)] = True
    return conceal(signal, lost, rate_hz)


def conceal(signal: Samples, lost: npt.NDArray[np.bool_], rate_hz: int) -> npt.NDArray[Any]:
    """Fill lost packets with the last pitch period before them, 6 dB fainter with each packet, faded over at the edges.

    As waveform substitution of telephony does (compare ITU-T G.711 Appendix I); before the first packet is silence.
    """
    size = round(PACKET_S * rate_hz)
    out = signal.astype(np.float64)
    edge = max(1, size // 8)
    ramp = np.linspace(0.0, 1.0, edge)
    missed = 0
    period: Doubles = np.zeros(1)
    for packet, gone in enumerate(lost):
        start, stop = packet * size, min((packet + 1) * size, len(signal))
        if gone:
            if missed == 0:
                period = _last_period(out[:start], rate_hz)
            place = np.arange(start, stop) - start + missed * size
            out[start:stop] = period[place % len(period)] * 0.5**missed
            missed += 1
            continue
        if missed:
            faded = min(edge, stop - start)
            place = np.arange(faded) + missed * size
            filled = period[place % len(period)] * 0.5**missed
            out[start : start + faded] = ramp[:faded] * out[start : start + faded] + (1 - ramp[:faded]) * filled
        missed = 0
    return out


def low_rate_codec(signal: Samples, passes: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Through the AMR narrowband speech codec at 4.75 kbit/s, ``passes`` times, as over several networks.

    Raises DataError where this build of PyAV has no AMR encoder.
    """
    narrow = soxr.resample(signal.astype(np.float64), rate_hz, AMR_RATE_HZ)
    peak = max(float(np.abs(narrow).max(initial=0.0)), 1e-9)
    # At a usual level: the codec's numbers are integers, and faint clips would vanish in them.
    pcm = narrow * (0.5 / peak)
    for _ in range(round(passes)):
        pcm = _through_amr(pcm)
    wide = soxr.resample(pcm * (peak / 0.5), AMR_RATE_HZ, rate_hz)
    return _of_length(wide, len(signal))


def wind(signal: Samples, snr_db: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Wind on the microphone: turbulence in gusts."""
    return add(signal, blowing(gusts(len(signal), rng), rng, rate_hz), snr_db)


def gusts(samples: int, rng: np.random.Generator) -> Doubles:
    """Strength of the wind over the row, 0.1 to 1, smooth."""
    knots = rng.uniform(0.1, 1.0, 7)
    place = np.linspace(0.0, 6.0, samples)
    left = np.minimum(place.astype(int), 5)
    blend = 0.5 - 0.5 * np.cos(np.pi * (place - left))
    return np.asarray(knots[left] * (1 - blend) + knots[left + 1] * blend)


def blowing(strength: Doubles, rng: np.random.Generator, rate_hz: int) -> Doubles:
    """Turbulence noise: its power falls with the square of the frequency above 60 Hz, louder and wider in gusts."""
    samples = len(strength)
    hertz = np.fft.rfftfreq(samples, 1.0 / rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    rumble = np.fft.irfft(spectrum / (1.0 + hertz / 60.0), n=samples)
    hiss = np.fft.irfft(spectrum / (1.0 + (hertz / 600.0) ** 2), n=samples)
    blown = strength**2 * rumble / _level(rumble) + 0.3 * strength**4 * hiss / _level(hiss)
    # The membrane gives way in the strongest gusts.
    return np.asarray(np.tanh(2.0 * blown))


def echo(signal: Samples, feedback: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """The sound and, every 80 to 200 ms, its echo, ``feedback`` as strong as the one before; the power stays."""
    out = signal.astype(np.float64)
    delays = (rng.uniform(0.08, 0.2, 2) * rate_hz).astype(int)
    for delay, strength in zip(delays, (feedback, 0.6 * feedback), strict=True):
        late = out.copy()
        for start in range(int(delay), len(out), int(delay)):
            stop = min(start + int(delay), len(out))
            late[start:stop] += strength * late[start - int(delay) : stop - int(delay)]
        out = late
    return out * (_level(signal) / _level(out))


def speed(signal: Samples, factor: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Played ``factor`` times as fast or as slow, pitch and all, about the middle; silence beyond its ends."""
    faster = factor if rng.random() < 0.5 else 1.0 / factor
    played = soxr.resample(signal.astype(np.float64), float(rate_hz), rate_hz / faster)
    out = np.zeros(len(signal))
    if len(played) >= len(out):
        start = (len(played) - len(out)) // 2
        return np.asarray(played[start : start + len(out)])
    start = (len(out) - len(played)) // 2
    out[start : start + len(played)] = played
    return out


SOUND: Final[Mapping[str, SoundFamily]] = {
    "music": music,
    "packet_loss": packet_loss,
    "low_rate_codec": low_rate_codec,
    "wind": wind,
    "echo": echo,
    "speed": speed,
}


def add(signal: Samples, noise: Doubles, snr_db: float) -> Doubles:
    """Mix noise into the signal at a signal-to-noise ratio of mean powers."""
    return np.asarray(signal + noise * (_level(signal) / _level(noise) * 10.0 ** (-snr_db / 20.0)))


def _level(sound: npt.NDArray[Any]) -> float:
    """Root of the mean power, never 0."""
    return max(float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))), 1e-9)


def _note(
    sound: Doubles, rate_hz: int, hertz: float, *, start_s: float, length_s: float, loud: float, decay: float
) -> None:
    """Add a note of five harmonics with a soft attack and an exponential decay; what is outside the row is cut."""
    first, last = max(0, round(start_s * rate_hz)), min(len(sound), round((start_s + length_s) * rate_hz))
    if last <= first:
        return
    time_s = np.arange(first, last) / rate_hz - start_s
    shape = loud * np.minimum(1.0, time_s / 0.01) * np.exp(-decay * time_s)
    for harmonic in range(1, 6):
        if harmonic * hertz < 0.45 * rate_hz:
            sound[first:last] += shape / harmonic * np.sin(2.0 * np.pi * harmonic * hertz * time_s)


def _last_period(past: Doubles, rate_hz: int) -> Doubles:
    """The last pitch period (2.5 to 15 ms) of what has arrived, by the best match with the stretch before it."""
    longest, shortest = int(0.015 * rate_hz), max(2, int(0.0025 * rate_hz))
    if len(past) < 2 * longest:
        return np.zeros(longest)
    lags = np.arange(shortest, longest + 1)
    early = np.lib.stride_tricks.sliding_window_view(past[-2 * longest :], longest)[longest - lags]
    scores = early @ past[-longest:] / np.maximum(np.linalg.norm(early, axis=1), 1e-9)
    return np.array(past[-int(lags[np.argmax(scores)]) :])


def _through_amr(pcm: Doubles) -> Doubles:
    """Encode and decode 8 kHz sound within ±1; about as long as it was."""
    try:
        encoder = av.CodecContext.create("libopencore_amrnb", "w")
        decoder = av.CodecContext.create("amrnb", "r")
    except (av.FFmpegError, ValueError) as error:
        raise DataError("low_rate_codec needs PyAV with libopencore_amrnb: install the av wheel from PyPI") from error
    if not isinstance(encoder, av.AudioCodecContext) or not isinstance(decoder, av.AudioCodecContext):
        raise TypeError("AMR is a codec of sound")
    encoder.sample_rate = decoder.sample_rate = AMR_RATE_HZ
    encoder.format, encoder.layout, decoder.layout = "s16", "mono", "mono"
    encoder.bit_rate = AMR_BITS_PER_S
    encoder.open()
    size = encoder.frame_size
    whole = np.concatenate([pcm, np.zeros(-len(pcm) % size + size)])
    integers = np.round(np.clip(whole, -1.0, 1.0) * 32767.0).astype(np.int16)
    packets = []
    for start in range(0, len(integers), size):
        frame = av.AudioFrame.from_ndarray(integers[None, start : start + size], format="s16", layout="mono")
        frame.sample_rate, frame.pts = AMR_RATE_HZ, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    frames = [frame.to_ndarray()[0] for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.concatenate(frames).astype(np.float64)[: len(pcm)]


def _of_length(sound: Doubles, samples: int) -> Doubles:
    """Cut or fill with zeros at the end."""
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))
