"""Make the sample clips in samples/ and their list, samples.csv, from test voices and test handwriting.

    python scripts/make_samples.py samples

Needs the [train] extra. The same clips each time: all words are said in this one fresh process, in order.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import soundfile

from dimml_training.avdigits.acoustics import add_noise, to_peak
from dimml_training.avdigits.drawing import PICTURE_PX, draw, load_glyphs
from dimml_training.avdigits.make import (
    CLIP_FRAMES,
    CLIP_SAMPLES,
    FRAME_RATE,
    LABELS,
    SAMPLE_RATE_HZ,
    place_word,
    say_words,
)
from dimml_training.avdigits.muxing import write_mp4
from dimml_training.avdigits.speech import FloatArray, Manner

Pictures = npt.NDArray[np.uint8]
SEED = 2024
CLIP_S = CLIP_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Sample:
    """One row of samples.csv. ``audio`` and ``visual`` are the statuses that an answer must have."""

    file: str
    label: str
    what: str
    start_s: str = ""
    end_s: str = ""
    audio: str = "ok"
    visual: str = "ok"


def clip(digit: int, word: FloatArray, rng: np.random.Generator) -> tuple[Pictures, FloatArray]:
    """Pictures and sound of one digit, with little noise."""
    choices = load_glyphs("test")[digit]
    sound = add_noise(place_word(word, CLIP_SAMPLES, rng), 30.0, 1.0, rng)
    return draw(choices[rng.integers(len(choices))], CLIP_FRAMES, rng), to_peak(sound, 0.5)


def covered(rng: np.random.Generator) -> Pictures:
    """What a lens sees through a thumb: a warm blur that hardly moves."""
    blur = cv2.resize(rng.uniform(0.7, 1.0, (4, 4, 1)).astype(np.float32), (PICTURE_PX, PICTURE_PX))
    skin = blur[..., None] * np.array([150.0, 75.0, 60.0], np.float32)
    grain = rng.standard_normal((CLIP_FRAMES, *skin.shape), dtype=np.float32) * 3.0
    return np.clip(np.rint(skin + grain), 0, 255).astype(np.uint8)


def without_pictures(path: Path, rng: np.random.Generator) -> bytes:
    """The recording with every packet of its picture track overwritten with noise."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.pos is not None and packet.size:
                data[packet.pos : packet.pos + packet.size] = rng.bytes(packet.size)
    return bytes(data)


def write_samples(folder: Path) -> Iterator[Sample]:
    """Write each file; its row."""
    rng = np.random.default_rng(SEED)
    says = [("three", "linda"), ("seven", "m3"), ("five", "travis"), ("two", "f2"), ("eight", "Hugo")]
    says += [("four", "sandro"), ("six", "announcer"), ("one", "m8"), ("zero", "Reed"), ("nine", "grandpa")]
    says += [("zero", "linda"), ("eight", "linda"), ("four", "linda"), ("nine", "Marco")]
    words = say_words([(text, Manner("en-us", voice, 150, 50, 50)) for text, voice in says])
    clips = [clip(LABELS.index(text), word, rng) for (text, _), word in zip(says, words, strict=True)]

    def mp4(name: str, pictures: Pictures | None, sound: FloatArray | None) -> str:
        write_mp4(folder / name, frames=pictures, frame_rate=FRAME_RATE, sound=sound, sample_rate_hz=SAMPLE_RATE_HZ)
        return name

    for (text, _), (pictures, sound) in zip(says[:3], clips[:3], strict=True):
        yield Sample(mp4(f"clean_{text}.mp4", pictures, sound), text, "clean")

    pictures, sound = clips[3]
    loud = to_peak(add_noise(sound, -10.0, 0.0, rng), 0.5)
    yield Sample(mp4("noisy_sound.mp4", pictures, loud), "two", "white noise 10 dB above the voice")
    yield Sample(mp4("covered_picture.mp4", covered(rng), clips[4][1]), "eight", "a thumb on the lens")
    yield Sample(mp4("no_sound.mp4", clips[5][0], None), "four", "no sound track", audio="absent:no_track")
    yield Sample(mp4("no_picture.mp4", None, clips[6][1]), "six", "no picture track", visual="absent:no_track")
    silence = np.zeros(CLIP_SAMPLES, np.float32)
    yield Sample(mp4("silent_sound.mp4", clips[7][0], silence), "one", "digital silence", audio="unusable:silent")
    black = np.zeros_like(clips[8][0])
    yield Sample(mp4("black_picture.mp4", black, clips[8][1]), "zero", "a lens cap", visual="unusable:black")

    torn = mp4("broken_picture.mp4", *clips[9])
    (folder / torn).write_bytes(without_pictures(folder / torn, rng))
    yield Sample(torn, "nine", "picture track overwritten with noise", visual="unusable:undecodable")

    whole = mp4("broken.mp4", *clips[9])
    (folder / whole).write_bytes((folder / whole).read_bytes()[:2500])
    bad = "unusable:undecodable"
    yield Sample(whole, "", "cut off before its index: not one track can be had", audio=bad, visual=bad)

    three = clips[10:13]
    name = mp4("long.mp4", np.concatenate([p for p, _ in three]), np.concatenate([s for _, s in three]))
    for index, (text, _) in enumerate(says[10:13]):
        start, end = index * CLIP_S, (index + 1) * CLIP_S
        yield Sample(name, text, f"stretch {index + 1} of 3", start_s=f"{start:g}", end_s=f"{end:g}")

    pictures, sound = clips[13]
    soundfile.write(folder / "spoken_nine.wav", sound, SAMPLE_RATE_HZ, subtype="PCM_16")
    yield Sample("spoken_nine.wav", "nine", "a sound file", visual="absent:no_track")
    cv2.imwrite(str(folder / "written_nine.png"), cv2.cvtColor(pictures[CLIP_FRAMES // 2], cv2.COLOR_RGB2BGR))
    yield Sample("written_nine.png", "nine", "a picture", audio="absent:no_track")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample clips and samples.csv.")
    parser.add_argument("out", type=Path, help="folder to write, replaced as a whole")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".samples-") as made:
        folder = Path(made) / "samples"
        folder.mkdir()
        with (folder / "samples.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([field.name for field in fields(Sample)])
            writer.writerows(astuple(sample) for sample in write_samples(folder))
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


if __name__ == "__main__":
    main()
