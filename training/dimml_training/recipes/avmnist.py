"""AV-MNIST: a written and a spoken digit, paired by label; plain, or in the hard form of Vielzeuf et al. 2018.

Layout: ``mnist/`` with the four official idx files (``.gz`` or not), ``fsdd/recordings/{digit}_{speaker}_{index}.wav``.

Training and validation pairs take MNIST's training pictures and FSDD's indices 5 and above (validation 5 to 9), test
pairs MNIST's test pictures and FSDD's official test recordings, indices 0 to 4. Each picture is used once; the 300
recordings of the validation and of the test split are used several times each, and the same six speakers are in all
splits. Classes are even.

Hard form ("CentralNet: a Multilayer Approach for Multimodal Fusion", ECCV workshops 2018): pictures keep only the
leading principal components of the training pictures with 25 % of their variance, and noise is added to the sound.
The paper takes its noise from ESC-50, which is not part of this data set: here it is, chosen at random, white noise,
pink noise, or three other recordings of the same split at once, at one ratio of mean powers.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import soundfile

from dimml.errors import ConfigurationError, DataError
from dimml_training.recipes.table import Listing, Row, count_warning, folder, write_whole

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Pairs by split; the class counts are even.
PAIRS = {"train": 6000, "validation": 1000, "test": 1000}
#: Number of published recordings of FSDD: 50 of each of ten digits by six speakers.
RECORDINGS = 3000
#: FSDD's indices by split; 0 to 4 is its official test split.
TEST_INDICES, VALIDATION_INDICES = range(5), range(5, 10)
#: Share of the pictures' variance that the hard form keeps.
ENERGY_KEPT = 0.25
HARD_SNR_DB = -5.0
BABBLE_VOICES = 3
#: File that names the form of the pairs in a folder of media.
FORM_FILE = "form.txt"

_RECORDING = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav")

ByteArray = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]


def make_avmnist(
    root: Path, media_out: Path, *, hard: bool, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Listing:
    """Write the pairs' media to ``media_out`` and list one row per pair.

    A row has ``picture`` and ``sound`` relative to ``media_out``, ``subject`` (the speaker), label and split.
    Raises DataError if a file of the data set is missing or malformed, ConfigurationError if nothing can be written or
    ``media_out`` holds another form of the pairs, whose files have the same names.
    """
    recordings = _recordings(folder(root, "fsdd/recordings"))
    pictures = {name: _mnist(folder(root, "mnist"), name) for name in ("train", "t10k")}
    project = _projection(pictures["train"][0]) if hard else None
    sounds = _SoundWriter(media_out, recordings, seed if hard else None)
    _claim(media_out, f"hard, seed {seed}" if hard else "plain")
    chosen = _pairs({name: labels for name, (_, labels) in pictures.items()}, recordings, seed)
    rows: list[Row] = []
    for done, (split, source, index, digit, path) in enumerate(chosen, start=1):
        picture = pictures[source][0][index]
        name = f"picture/{source}_{index:05d}.png"
        _write_picture(media_out / name, picture if project is None else project(picture))
        rows.append(
            {
                "picture": name,
                "sound": sounds.write(path, split, f"{source}_{index:05d}"),
                "label": CLASSES[digit],
                "split": split,
                "subject": path.stem.split("_")[1],
            }
        )
        if progress is not None:
            progress(done, len(chosen))
    there = sum(len(paths) for paths in recordings.values())
    return Listing(rows, ["picture", "sound"], count_warning(there, RECORDINGS, "recordings of FSDD"))


def _claim(media_out: Path, form: str) -> None:
    """Check that a folder of media is new or holds the same form of the pairs, and write that form into it."""
    path = media_out / FORM_FILE
    there = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else form
    if there != form:
        raise ConfigurationError(
            f"{media_out} holds other media of AV-MNIST ({there}); choose another place by --media-out",
            field="--media-out",
        )
    write_whole(path, f"{form}\n".encode(), "--media-out")


def read_idx(path: Path) -> ByteArray:
    """Read an idx file of bytes with one or three dimensions (LeCun's format), gzipped or not. Raises DataError."""
    packed = path.with_name(path.name + ".gz")
    try:
        data = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        # Magic number: zero, zero, 8 for bytes, and the number of dimensions.
        dimensions = {b"\0\0\x08\x01": 1, b"\0\0\x08\x03": 3}[data[:4]]
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except OSError as error:
        raise DataError(f"cannot read {path}(.gz): {error.strerror or error}", field=str(path)) from error
    except (KeyError, EOFError, struct.error, ValueError) as error:
        raise DataError(f"{path}(.gz) is not a whole idx file of bytes", field=str(path)) from error


def _mnist(root: Path, name: str) -> tuple[ByteArray, ByteArray]:
    """Read pictures ``[N, 28, 28]`` and digits ``[N]``."""
    pictures, labels = read_idx(root / f"{name}-images-idx3-ubyte"), read_idx(root / f"{name}-labels-idx1-ubyte")
    if pictures.ndim != 3 or labels.shape != pictures.shape[:1]:
        raise DataError(f"{root}: the pictures and labels of {name} do not belong together", field="--root")
    return pictures, labels


def _recordings(root: Path) -> dict[tuple[str, int], list[Path]]:
    """Recordings by split and digit, sorted."""
    found: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path in sorted(root.iterdir()):
        match = _RECORDING.fullmatch(path.name)
        if match:
            index = int(match["index"])
            split = "test" if index in TEST_INDICES else "validation" if index in VALIDATION_INDICES else "train"
            found[split, int(match["digit"])].append(path)
    lacking = [f"{split} of digit {digit}" for split in PAIRS for digit in range(10) if not found[split, digit]]
    if lacking:
        raise DataError(f"{root} has no recording for {', '.join(lacking)}", field="--root")
    return dict(found)


def _pairs(
    labels: dict[str, ByteArray], recordings: dict[tuple[str, int], list[Path]], seed: int
) -> list[tuple[str, str, int, int, Path]]:
    """Pair pictures and recordings: ``(split, MNIST file, index in it, digit, recording)``, in the order of pictures.

    The recordings of a digit are used in shuffled rounds, so that their numbers of uses differ by one at most.
    """
    pairs = []
    for digit in range(10):
        rng = np.random.default_rng((seed, digit))
        order = {name: rng.permutation(np.flatnonzero(of == digit)) for name, of in labels.items()}
        begin = dict.fromkeys(order, 0)
        for split, count in PAIRS.items():
            source = "t10k" if split == "test" else "train"
            each = count // 10
            indices = order[source][begin[source] : begin[source] + each]
            begin[source] += each
            if len(indices) < each:
                raise DataError(f"MNIST's {source} has too few pictures of {digit} for {count} pairs", field="--root")
            paths = recordings[split, digit]
            rounds = [rng.permutation(len(paths)) for _ in range(-(-each // len(paths)))]
            used = np.concatenate(rounds)[:each]
            pairs += [(split, source, int(i), digit, paths[int(j)]) for i, j in zip(indices, used, strict=True)]
    return sorted(pairs, key=lambda pair: (list(PAIRS).index(pair[0]), pair[2]))


def _projection(pictures: ByteArray) -> Callable[[ByteArray], ByteArray]:
    """Projection onto the fewest leading principal components that hold ENERGY_KEPT of the variance of ``pictures``."""
    pixels = pictures.reshape(len(pictures), -1).astype(np.float64)
    mean = pixels.mean(axis=0)
    covariance = pixels.T @ pixels / len(pixels) - np.outer(mean, mean)
    energy, vectors = np.linalg.eigh(covariance)
    energy, vectors = energy[::-1], vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(energy) / energy.sum(), ENERGY_KEPT)) + 1
    basis = vectors[:, :kept]

    def project(picture: ByteArray) -> ByteArray:
        flat = mean + (picture.reshape(-1) - mean) @ basis @ basis.T
        return np.asarray(np.clip(np.rint(flat), 0, 255).reshape(picture.shape), np.uint8)

    return project


class _SoundWriter:
    """Writer of the pairs' sound: copies of the recordings or, with a seed, a noisy recording for each pair."""

    def __init__(self, out: Path, recordings: dict[tuple[str, int], list[Path]], seed: int | None) -> None:
        self._out = out
        self._seed = seed
        self._of_split: dict[str, list[Path]] = defaultdict(list)
        for (split, _), paths in sorted(recordings.items()):
            self._of_split[split] += paths
        self._read: dict[Path, tuple[Sound, int]] = {}

    def write(self, path: Path, split: str, pair: str) -> str:
        """Write one pair's sound; return its path relative to the output folder."""
        if self._seed is None:
            name = f"sound/{path.name}"
            if not (self._out / name).exists():
                write_whole(self._out / name, path.read_bytes(), "--media-out")
            return name
        name = f"sound/{pair}_{path.name}"
        source, number = pair.split("_")
        rng = np.random.default_rng((self._seed, 1 if source == "t10k" else 0, int(number)))
        sound, rate_hz = self._sound(path)
        noisy = _add(sound, self._noise(path, split, len(sound), rng), HARD_SNR_DB)
        wav = io.BytesIO()
        soundfile.write(wav, noisy, rate_hz, subtype="PCM_16", format="WAV")
        write_whole(self._out / name, wav.getvalue(), "--media-out")
        return name

    def _noise(self, path: Path, split: str, samples: int, rng: np.random.Generator) -> Sound:
        kind = rng.integers(3)
        if kind == 0:
            return rng.standard_normal(samples).astype(np.float32)
        if kind == 1:
            return _pink(samples, rng)
        others = [other for other in self._of_split[split] if other != path]
        mixed = np.zeros(samples, np.float32)
        for number in rng.choice(len(others), BABBLE_VOICES, replace=False):
            voice, _ = self._sound(others[number])
            voice = voice / max(float(np.sqrt(np.mean(voice**2))), 1e-6)
            mixed += np.resize(np.roll(voice, -int(rng.integers(len(voice)))), samples)
        return mixed

    def _sound(self, path: Path) -> tuple[Sound, int]:
        if path not in self._read:
            try:
                sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise DataError(f"cannot read {path}: {error.error_string}", field=str(path)) from error
            self._read[path] = sound.mean(axis=1), rate_hz
        return self._read[path]


def _pink(samples: int, rng: np.random.Generator) -> Sound:
    """Pink noise, whose power falls with the frequency (1/f)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
    return np.asarray(np.fft.irfft(spectrum, samples), np.float32)


def _add(sound: Sound, noise: Sound, snr_db: float) -> Sound:
    """Mix sound and noise at a ratio of mean powers over the recording, scaled down together if they would clip."""
    power, noise_power = float(np.mean(sound**2)), float(np.mean(noise**2))
    mixed = sound + noise * np.sqrt(power / max(noise_power, 1e-12)) * 10.0 ** (-snr_db / 20.0)
    return np.asarray(mixed / max(1.0, float(np.abs(mixed).max())), np.float32)


def _write_picture(path: Path, picture: ByteArray) -> None:
    _, data = cv2.imencode(".png", picture)
    write_whole(path, data.tobytes(), "--media-out")
