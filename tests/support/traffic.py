"""A tiny bundle that knows its validation clips, and steady traffic of a kind that can be changed while it runs."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx
import numpy as np

from dimml.bundle import FUSED_HEAD, Bundle
from dimml.monitoring.accuracy import pattern_of
from dimml.monitoring.reference import reference_of
from dimml_server.local import LocalPredictor
from support.media_maker import write_clip
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, coloured, tiny_clip
from support.tiny_sets import SETS, tiny_sets


def clean_clips(folder: Path) -> list[bytes]:
    """One clip of each class."""
    return [tiny_clip(folder, label) for label in range(len(LABELS))]


def silent_clips(folder: Path) -> list[bytes]:
    """The same without sound, as of a microphone that died."""
    return [tiny_clip(folder, label, sound="silence") for label in range(len(LABELS))]


def noisy_clips(folder: Path, count: int = 12) -> list[bytes]:
    """Pictures of a class with white noise for sound, as of a microphone whose cable is loose."""
    rng = np.random.default_rng(7)
    return [
        write_clip(
            folder / f"noisy{number}.mp4",
            picture=coloured(number % len(LABELS)),
            sound=lambda time_s: 0.3 * rng.standard_normal(len(time_s)),
        ).read_bytes()
        for number in range(count)
    ]


def referenced_bundle(repository: Path, clips: Sequence[bytes], times: int = 100) -> Bundle:
    """A tiny bundle as its next version, with prediction sets, and a reference counted, as export would, on what the
    version before says of clips, each of them ``times`` over."""
    bundle = make_tiny_bundle(repository)
    with LocalPredictor(repository, decode_workers=1, concurrency=1) as predictor:
        answers = [predictor.predict(clip) for clip in clips]
    certainty = [[a.modalities[m.name].certainty or 0.0 for m in bundle.modalities] for a in answers]
    fused = [[a.fused_head.certainty or 0.0 if a.fused_head else 0.0] for a in answers]
    present = [[m.status == "ok" for m in a.modalities.values()] for a in answers]
    names = [m.name for m in bundle.modalities]
    reference = reference_of(
        (*names, FUSED_HEAD),
        np.repeat(np.concatenate([certainty, fused], axis=1), times, axis=0),
        np.repeat([[*row, all(row)] for row in present], times, axis=0),
        np.repeat([[a.label == label for label in bundle.labels] for a in answers], times, axis=0),
        {pattern_of(names): float(np.mean([a.probability for a in answers]))},
    )
    sets = tiny_sets(**SETS, abstain_below=1.0)
    return make_tiny_bundle(repository, reference=reference, prediction_sets=sets)


class Traffic:
    """Posts clips to ``/v1/predict``, one after another with a pause, until left. ``clips`` can be replaced."""

    def __init__(self, url: str, clips: Sequence[bytes], *, pause_s: float) -> None:
        self.clips = clips
        self.statuses: Counter[int] = Counter()
        self._url, self._pause_s = url, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._post, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _post(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60.0) as http:
            for number in itertools.count():
                clips = self.clips
                answer = http.post("/v1/predict", files={"media": clips[number % len(clips)]})
                self.statuses[answer.status_code] += 1
                if self._over.wait(self._pause_s):
                    return
