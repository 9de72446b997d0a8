"""A tiny bundle in a real Triton server whose encoders can be made to fail, and a steady load on it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from dimml.bundle import Bundle
from dimml.status import ModalityStatus
from support.gateway import Answered
from support.gateway import Load as Answers
from support.tiny_bundle import AUDIO, VISUAL, make_tiny_bundle, tiny_row
from support.triton_process import TritonServer

#: A ``model.py`` that is copied into the repository, and runs inside Triton alone.
FAULTY_ENCODER = Path(__file__).parent / "faulty_encoder.py"
#: Of an encoder; long enough for a busy machine, and for the process of a killed encoder to be missed.
DEADLINE_MS = 1500.0
CALL_LIMIT_S = 30.0
_NONE_LEFT = re.compile(r"no encoder answered: audio (?P<audio>[\w:]+), visual (?P<visual>[\w:]+)")


def make_faulty_bundle(repository: Path, name: str = "tiny", *, media: bool = False) -> Bundle:
    """A tiny bundle whose sound encoder obeys ``Faults``; the picture's is a plain ONNX model.

    Without the model of recordings, which a gateway wants to see, a Triton that loads everything starts sooner.
    """
    bundle = make_tiny_bundle(repository, name=name, deadline_ms=DEADLINE_MS)
    sound = repository / bundle.encoder_model("audio")
    shutil.copy(FAULTY_ENCODER, sound / "1" / "model.py")
    config = sound / "config.pbtxt"
    config.write_text(config.read_text().replace('"onnxruntime"', '"python"'))
    if not media:
        shutil.rmtree(repository / bundle.media_model)
    # Fewer processes, for a quicker start.
    entry = repository / name / "config.pbtxt"
    entry.write_text(entry.read_text().replace("count: 4", "count: 2"))
    return bundle


@dataclass
class Faults:
    """Makes encoders of a bundle fail, and mends them."""

    server: TritonServer
    repository: Path
    bundle: Bundle

    def tell_sound(self, fault: str) -> None:
        """``raise``, ``nan``, ``sleep SECONDS``; empty mends it."""
        path = self.repository / self.bundle.encoder_model("audio") / "fault"
        aside = path.with_suffix(".new")
        aside.write_text(fault)
        aside.rename(path)

    def unload(self, modality: str) -> None:
        """Unload an encoder, by Triton's repository call."""
        with self.client() as client:
            client.unload_model(self.bundle.encoder_model(modality))

    def load(self, modality: str) -> None:
        """Load an encoder again. Raises InferenceServerException."""
        with self.client() as client:
            client.load_model(self.bundle.encoder_model(modality))

    def kill(self, modality: str) -> None:
        """Kill the encoder's process."""
        (process,) = self.server.stubs(self.bundle.encoder_model(modality))
        os.kill(process, signal.SIGKILL)

    @contextmanager
    def garbage(self, modality: str) -> Iterator[None]:
        """Within the block, the encoder's file is garbage."""
        path = self.bundle.model_file(self.repository, self.bundle.encoder_model(modality))
        kept = path.read_bytes()
        path.write_bytes(b"garbage" * 100)
        try:
            yield
        finally:
            path.write_bytes(kept)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A gRPC client."""
        client = tritonclient.grpc.InferenceServerClient(self.server.grpc)
        try:
            yield client
        finally:
            client.close()


@dataclass
class Load:
    """What a steady load has seen since the last ``take``: answers by the statuses in them, and failures."""

    answers: Counter[tuple[str, ...]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wrong_labels: int = 0
    #: When the last answer with all modalities ok came, and the last one without; monotonic seconds.
    whole_at: float = 0.0
    degraded_at: float = 0.0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answers.total() + len(self.failures)

    @property
    def degraded(self) -> int:
        """Answers in which a modality is not ok."""
        return sum(count for statuses, count in self.answers.items() if _is_degraded(statuses))


class LoadGenerator:
    """``clients`` threads that ask the entry model for rows of known labels, one request after another.

    ``made`` keeps every answer, as the load on a gateway does.
    """

    def __init__(self, grpc: str, bundle: Bundle, clients: int = 4, pause_s: float = 0.02) -> None:
        self._grpc, self._bundle, self._pause_s = grpc, bundle, pause_s
        self.made = Answers()
        self._lock = threading.Condition()
        self._seen = Load()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> LoadGenerator:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CALL_LIMIT_S)

    def take(self) -> Load:
        """What was seen so far; from now on, counting begins anew."""
        with self._lock:
            seen, self._seen = self._seen, Load()
        return seen

    def wait_for(self, enough: Callable[[Load], bool], limit_s: float) -> Load:
        """Look until it is ``enough``, then ``take``. Raises AssertionError past ``limit_s``."""
        with self._lock:
            assert self._lock.wait_for(lambda: enough(self._seen), limit_s), f"not within {limit_s:g} s: {self._seen}"
            seen, self._seen = self._seen, Load()
            return seen

    def _ask(self, number: int) -> None:
        client = tritonclient.grpc.InferenceServerClient(self._grpc)
        label = number % self._bundle.classes
        inputs = tiny_inputs(tritonclient.grpc, label)
        expected = self._bundle.labels[label]
        while not self._stop.wait(self._pause_s):
            began = time.monotonic()
            try:
                result = client.infer(self._bundle.name, inputs, client_timeout=CALL_LIMIT_S)
            except InferenceServerException as error:
                self.made.add(_failed(error, began, expected))
                with self._lock:
                    self._seen.failures.append(str(error))
                    self._lock.notify_all()
                continue
            statuses = tuple(text.decode() for text in result.as_numpy("STATUS")[0])
            answered = int(result.as_numpy("PROBABILITIES")[0].argmax())
            wrong = answered != label
            now = time.monotonic()
            modalities = dict(zip(("audio", "visual"), statuses, strict=True))
            degraded, given = _is_degraded(statuses), self._bundle.labels[answered]
            self.made.add(Answered(began, now, 200, degraded, modalities, given, expected))
            with self._lock:
                self._seen.answers[statuses] += 1
                self._seen.wrong_labels += wrong
                if _is_degraded(statuses):
                    self._seen.degraded_at = now
                else:
                    self._seen.whole_at = now
                self._lock.notify_all()
        client.close()


def tiny_inputs(module: Any, label: int, modalities: tuple[str, ...] = ("audio", "visual")) -> list[Any]:
    """Inputs of one row of class ``label`` for the entry model of a tiny bundle, for a module of tritonclient."""
    inputs = []
    for modality, datatype in ((AUDIO, "FP32"), (VISUAL, "UINT8")):
        if modality.name in modalities:
            tensor = module.InferInput(modality.tensor, [1, *modality.shape], datatype)
            tensor.set_data_from_numpy(tiny_row(modality, label)[None])
            inputs.append(tensor)
    return inputs


def _failed(error: InferenceServerException, began: float, expected: str) -> Answered:
    """The failed request as HTTP would have it: 503 and each modality's status, or 0 for what is unforeseen."""
    found = _NONE_LEFT.search(str(error))
    if error.status() != "StatusCode.UNAVAILABLE" or found is None:
        return Answered(began, time.monotonic(), 0, modalities={"audio": str(error)}, expected=expected)
    modalities = {"audio": found["audio"], "visual": found["visual"]}
    return Answered(began, time.monotonic(), 503, modalities=modalities, expected=expected)


def _is_degraded(statuses: tuple[str, ...]) -> bool:
    return any(ModalityStatus.parse(text).degrades for text in statuses)
