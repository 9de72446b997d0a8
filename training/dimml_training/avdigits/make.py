"""Plan the clips, make them in worker processes, write the clip table. Same seed, same clips; resumable."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from dimml.errors import ConfigurationError, DataError
from dimml.system.files import write_atomically
from dimml_training.avdigits.acoustics import NOISE_EXPONENTS, add_noise, reverberate, to_peak
from dimml_training.avdigits.drawing import Glyphs, draw, load_glyphs
from dimml_training.avdigits.muxing import write_mp4
from dimml_training.avdigits.speech import FloatArray, Manner, Synthesizer
from dimml_training.avdigits.voices import ACCENTS, VOICES, Split

#: Incremented when the same seed would give other clips than before.
RECIPE_VERSION: Final = 1
LABELS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE_HZ: Final = 16_000
FRAME_RATE: Final = Fraction(25, 2)
CLIP_FRAMES: Final = 15
CLIP_SAMPLES: Final = int(CLIP_FRAMES / FRAME_RATE * SAMPLE_RATE_HZ)
MANIFEST_NAME: Final = "manifest.csv"
RECIPE_NAME: Final = "avdigits.json"
#: Splits of every 20 clips.
_SPLIT_PATTERN: Final[tuple[Split, ...]] = (*("train",) * 14, *("validation",) * 2, *("test",) * 4)


@dataclass(frozen=True, slots=True)
class Clip:
    """One planned clip."""

    index: int
    split: Split
    label: int
    voice: str

    @property
    def path(self) -> str:
        """Path relative to the data set's folder."""
        return f"clips/{self.split}/{self.index:06d}_{LABELS[self.label]}.mp4"


def plan(clips: int, seed: int) -> list[Clip]:
    """Plan the first ``clips`` clips of a seed. A larger number only appends."""
    counts: dict[Split, int] = {"train": 0, "validation": 0, "test": 0}
    planned = []
    for index in range(clips):
        split = _SPLIT_PATTERN[index % len(_SPLIT_PATTERN)]
        label, counts[split] = counts[split] % len(LABELS), counts[split] + 1
        voices = VOICES[split]
        voice = voices[np.random.default_rng([seed, index, 0]).integers(len(voices))]
        planned.append(Clip(index, split, label, voice))
    return planned


def draw_manner(voice: str, rng: np.random.Generator) -> Manner:
    """Draw accent, speed and pitch of a clip's word at random."""
    return Manner(
        accent=ACCENTS[rng.integers(len(ACCENTS))],
        voice=voice,
        words_per_minute=int(rng.integers(130, 221)),
        pitch=int(rng.integers(15, 86)),
        pitch_range=int(rng.integers(20, 81)),
    )


def place_word(word: FloatArray, samples: int, rng: np.random.Generator) -> FloatArray:
    """Place ``word`` at random within ``[samples]`` of silence; a word that is too long loses its end."""
    word = word[:samples]
    start = int(rng.integers(samples - len(word) + 1))
    sound = np.zeros(samples, np.float32)
    sound[start : start + len(word)] = word
    return sound


def record(word: FloatArray, rng: np.random.Generator, samples: int = CLIP_SAMPLES) -> FloatArray:
    """Simulate a recording of ``word`` in a room, ``[samples]`` at SAMPLE_RATE_HZ.

    Two of three clips are reverberant (RT60 0.1 to 0.6 s); noise is 5 to 45 dB below the whole clip's RMS.
    """
    sound = place_word(word, samples, rng)
    if rng.random() < 2 / 3:
        sound = reverberate(sound, SAMPLE_RATE_HZ, float(rng.uniform(0.1, 0.6)), rng)
    exponent = NOISE_EXPONENTS[rng.integers(len(NOISE_EXPONENTS))]
    sound = add_noise(sound, float(rng.uniform(5.0, 45.0)), exponent, rng)
    return to_peak(sound, float(10.0 ** (rng.uniform(-20.0, -1.0) / 20.0)))


def say_words(words: Sequence[tuple[str, Manner]]) -> list[FloatArray]:
    """Synthesize each word at SAMPLE_RATE_HZ. Only in a fresh process does the same call give the same sound."""
    synthesizer = Synthesizer()
    return [
        np.asarray(soxr.resample(synthesizer.say(text, manner), synthesizer.sample_rate_hz, SAMPLE_RATE_HZ), np.float32)
        for text, manner in words
    ]


def make_voice(root: Path, seed: int, clips: Sequence[Clip], glyphs: Glyphs) -> int:
    """Make the missing clips of one voice; return the number of all its clips. Runs in a process of its own.

    All words are synthesized, even those of clips that already exist: eSpeak's state carries over from word to word.
    """
    rngs = [np.random.default_rng([seed, clip.index, 1]) for clip in clips]
    words = say_words(
        [(LABELS[clip.label], draw_manner(clip.voice, rng)) for clip, rng in zip(clips, rngs, strict=True)]
    )
    for clip, rng, word in zip(clips, rngs, words, strict=True):
        path = root / clip.path
        if path.exists():
            continue
        choices = glyphs[clip.label]
        write_mp4(
            path,
            frames=draw(choices[rng.integers(len(choices))], CLIP_FRAMES, rng),
            frame_rate=FRAME_RATE,
            sound=record(word, rng),
            sample_rate_hz=SAMPLE_RATE_HZ,
        )
    return len(clips)


def _check_recipe(root: Path, seed: int) -> None:
    """Refuse to mix clips of two recipes in one folder."""
    path, recipe = root / RECIPE_NAME, {"recipe_version": RECIPE_VERSION, "seed": seed}
    if not path.exists():
        path.write_text(json.dumps(recipe) + "\n")
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON; choose another folder, or empty this one") from error
    if found != recipe:
        raise ConfigurationError(
            f"{root} holds clips of {found}, wanted is {recipe}; choose another folder, or empty this one",
            field="--out",
        )


def _write_manifest(root: Path, clips: Sequence[Clip]) -> Path:
    path = root / MANIFEST_NAME
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "subject"])
    writer.writerows([clip.path, LABELS[clip.label], clip.split, clip.voice] for clip in clips)
    write_atomically(path, text.getvalue().encode())
    return path


def _made(root: Path, seed: int, clips: Sequence[Clip], jobs: int) -> Iterator[int]:
    """Make all clips, one process per voice; yield the number of clips of each finished process."""
    by_voice: dict[str, list[Clip]] = {}
    for clip in clips:
        by_voice.setdefault(clip.voice, []).append(clip)
    todo = {voice: own for voice, own in by_voice.items() if not all((root / clip.path).exists() for clip in own)}
    yield sum(len(own) for voice, own in by_voice.items() if voice not in todo)
    glyphs = {split: load_glyphs(split) for split in {clip.split for own in todo.values() for clip in own}}
    with ProcessPoolExecutor(
        max_workers=jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        futures = [pool.submit(make_voice, root, seed, own, glyphs[own[0].split]) for own in todo.values()]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def make_avdigits(
    root: Path, *, clips: int, seed: int, jobs: int, progress: Callable[[int], None] = lambda done: None
) -> Path:
    """Make ``clips`` clips and their table in ``root``; return the table's path.

    ``progress`` is called with the number of clips done since its last call. Clips that already exist are kept, so an
    interrupted run continues where it stopped. Raises ConfigurationError for a folder made with another seed or recipe.
    """
    planned = plan(clips, seed)
    for split in VOICES:
        (root / "clips" / split).mkdir(parents=True, exist_ok=True)
    _check_recipe(root, seed)
    # One thread per worker: OpenCV and numpy would otherwise start one per core in each of them.
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        for done in _made(root, seed, planned, jobs):
            progress(done)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return _write_manifest(root, planned)
