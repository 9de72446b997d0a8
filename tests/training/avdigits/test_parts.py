"""The parts of the AVDIGITS maker: voice, room, noise, pictures, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import espeakng_loader
import numpy as np
import pytest

from dimml.errors import ConfigurationError
from dimml_training.avdigits.acoustics import add_noise, coloured_noise, reverberate, to_peak
from dimml_training.avdigits.drawing import PICTURE_PX, draw, load_glyphs
from dimml_training.avdigits.make import FRAME_RATE, SAMPLE_RATE_HZ
from dimml_training.avdigits.muxing import write_mp4
from dimml_training.avdigits.speech import Manner, Synthesizer
from dimml_training.avdigits.voices import ACCENTS, SPLITS, VOICES

#: Two voices with breath noise, which eSpeak seeds from the clock, and one with a fluttering pitch.
SPEAK = """
import hashlib
from dimml_training.avdigits.make import say_words
from dimml_training.avdigits.speech import Manner
voices = ["sandro", "f2", "croak"]
for sound in say_words([("seven", Manner("en-us", voice, 150, 50, 50)) for voice in voices]):
    print(hashlib.sha256(sound.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


def test_every_voice_exists() -> None:
    variants = {path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()}
    assert {voice for voices in VOICES.values() for voice in voices} <= variants


def test_tunings_of_one_voice_stand_in_one_split() -> None:
    family = {voice: voice.rstrip("0123456789") for split in SPLITS for voice in VOICES[split]}
    for voice, name in family.items():
        # m1 to m8 and f1 to f5 are eSpeak's numbered, different speakers.
        relatives = {v for v, n in family.items() if n == name} if name not in ("m", "f") else {voice}
        assert len({split for split in SPLITS for v in relatives if v in VOICES[split]}) == 1


@pytest.mark.parametrize("accent", ACCENTS)
def test_every_accent_speaks(synthesizer: Synthesizer, accent: str) -> None:
    sound = synthesizer.say("seven", Manner(accent, "m3", 160, 50, 50))
    assert 0.25 < len(sound) / synthesizer.sample_rate_hz < 1.0
    assert float(np.abs(sound).max()) == pytest.approx(1.0)
    # Silence before and after is cut.
    assert min(np.abs(sound[:200]).max(), np.abs(sound[-200:]).max()) > 0.01


def test_rate_and_pitch_are_heard(synthesizer: Synthesizer) -> None:
    slow, fast = (synthesizer.say("nine", Manner("en-us", "m3", rate, 50, 50)) for rate in (130, 220))
    assert len(slow) > 1.2 * len(fast)

    def pitch_hz(sound: np.ndarray) -> float:
        middle = sound[len(sound) // 3 : len(sound) // 3 + 2048]
        correlation = np.correlate(middle, middle, "full")[len(middle) :]
        shortest, longest = (int(synthesizer.sample_rate_hz / hz) for hz in (250, 60))
        return synthesizer.sample_rate_hz / (shortest + int(correlation[shortest:longest].argmax()))

    low, high = (pitch_hz(synthesizer.say("nine", Manner("en-us", "m3", 150, pitch, 50))) for pitch in (20, 80))
    assert high > 1.3 * low


def test_a_voice_that_is_not_there_is_named(synthesizer: Synthesizer) -> None:
    with pytest.raises(ConfigurationError, match="xx-nosuch"):
        synthesizer.say("one", Manner("xx-nosuch", "m3", 150, 50, 50))


def test_a_fresh_process_says_the_same_each_time() -> None:
    said = [subprocess.run([sys.executable, "-c", SPEAK], capture_output=True, check=True).stdout for _ in range(2)]
    assert said[0] == said[1]
    assert len(set(said[0].split())) == 3


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_has_its_level_and_colour(exponent: float) -> None:
    rng = np.random.default_rng(0)
    sound = np.sin(np.arange(16_000) * 0.3).astype(np.float32)
    noise = add_noise(sound, 6.0, exponent, rng) - sound
    assert 10 * np.log10((sound**2).mean() / (noise**2).mean()) == pytest.approx(6.0, abs=0.05)
    power = np.abs(np.fft.rfft(coloured_noise(2**16, exponent, rng))) ** 2
    octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(5, 15)]
    slope = np.polyfit(range(10), np.log2(octaves), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.15)


def test_a_room_rings_for_its_time() -> None:
    click = np.zeros(SAMPLE_RATE_HZ, np.float32)
    click[0] = 1.0
    wet = reverberate(click, SAMPLE_RATE_HZ, 0.4, np.random.default_rng(0))
    assert len(wet) == len(click)
    assert wet[0] == pytest.approx(1.0, abs=1e-4)

    def level_db(at_s: float) -> float:
        window = wet[int(at_s * SAMPLE_RATE_HZ) : int((at_s + 0.04) * SAMPLE_RATE_HZ)]
        return float(10 * np.log10((window**2).mean()))

    # 60 dB in 0.4 s is 30 dB in 0.2 s.
    assert level_db(0.1) - level_db(0.3) == pytest.approx(30.0, abs=3.0)
    assert np.abs(wet[int(0.45 * SAMPLE_RATE_HZ) :]).max() < 1e-4


def test_peaks_are_set() -> None:
    assert np.abs(to_peak(np.array([0.1, -0.4], np.float32), 0.5)).max() == pytest.approx(0.5)
    assert not to_peak(np.zeros(4, np.float32), 0.5).any()


def test_no_handwritten_image_is_in_two_splits() -> None:
    images = {split: load_glyphs(split) for split in SPLITS}
    seen = {split: {image.tobytes() for own in images[split].values() for image in own} for split in SPLITS}
    assert sum(len(own) for split in SPLITS for own in images[split].values()) == 1797
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert all(len(own) >= 10 for split in SPLITS for own in images[split].values())


def test_drawn_digits_are_large_and_move() -> None:
    glyph = load_glyphs("train")[8][0]
    for seed in range(8):
        pictures = draw(glyph, 5, np.random.default_rng(seed))
        assert pictures.shape == (5, PICTURE_PX, PICTURE_PX, 3)
        assert pictures.dtype == np.uint8
        assert not (pictures[0] == pictures[-1]).all()
        # The ink stands out from what is around it.
        grey = pictures[2].mean(axis=2)
        assert np.percentile(grey, 97) - np.percentile(grey, 3) > 50


def test_the_same_frames_and_sound_give_the_same_file(tmp_path: Path) -> None:
    """x264 with its look-ahead reads memory that nobody wrote, and gives another file every second time."""
    pictures = draw(load_glyphs("train")[3][0], 15, np.random.default_rng(4))
    sound = coloured_noise(8000, 1.0, np.random.default_rng(4)) * np.float32(0.1)
    path = tmp_path / "clip.mp4"
    made, rubbish = set(), []
    for turn in range(12):
        rubbish.append(np.full(10_000 + 7919 * turn, turn, np.uint8))
        write_mp4(path, frames=pictures, frame_rate=FRAME_RATE, sound=sound, sample_rate_hz=SAMPLE_RATE_HZ)
        made.add(path.read_bytes())
    assert len(made) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kept", ["picture", "sound"])
def test_a_file_may_have_one_track(tmp_path: Path, kept: str) -> None:
    path = tmp_path / "clip.mp4"
    pictures = draw(load_glyphs("train")[3][0], 4, np.random.default_rng(4)) if kept == "picture" else None
    sound = coloured_noise(8000, 0.0, np.random.default_rng(4)) if kept == "sound" else None
    write_mp4(path, frames=pictures, frame_rate=FRAME_RATE, sound=sound, sample_rate_hz=SAMPLE_RATE_HZ)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video" if kept == "picture" else "audio"]
