"""Encoders in each precision on this processor: latency at batch 1 and 8, throughput, memory, and labels that agree.

    python benchmarks/precision.py --repository models --bundle grid_digit
    python benchmarks/precision.py --config training/configs/crema_d_paper.yaml --calibration-clips 16 --rounds 5

Of a bundle, all of its versions in the repository are compared, the first in FP32 being the reference; what each costs
in accuracy stands in its manifest. With ``--config`` the encoders of a training config are made untrained, to time
architectures at sizes not trained on this machine: agreement says little of such ones.

Every encoder runs in one thread on one core, rounds of all precisions in turn, on rows of noise. Memory is what a
process grows by while it loads an encoder and runs it at batch 1 and then 8 (PSS).
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from harness.processes import pss_bytes
from harness.ratios import ratio
from harness.report import Page, machine, table

from dimml.contract import FEATURES, LOGITS
from dimml.repository import bundle_versions, load_bundle
from dimml.system.cpu import exact_int8_sums, int8_instructions
from dimml.system.outbound import import_quietly

BATCHES = (1, 8)
#: By modality and precision (of a bundle with its version), the file of the encoder.
Files = dict[str, dict[str, Path]]


def bundle_files(repository: Path, name: str) -> Files:
    """Encoders of all versions of a bundle, the first in FP32 first."""
    bundles = [load_bundle(repository, name, version) for version in bundle_versions(repository, name)]
    bundles.sort(key=lambda bundle: (bundle.precision != "fp32", bundle.version))
    return {
        modality.name: {
            f"{bundle.precision}, version {bundle.version}": bundle.model_file(
                repository, bundle.encoder_model(modality.name)
            )
            for bundle in bundles
        }
        for modality in bundles[0].modalities
    }


def config_files(path: Path, folder: Path, calibration_clips: int) -> Files:
    """Encoders of a training config, untrained but for batch statistics of noise, in all precisions."""
    import onnx
    import torch

    from dimml.bundle import Bundle, Encoder
    from dimml.contract import model_specs
    from dimml.fusion import PAPER
    from dimml_export.encoder_graph import encoder_model
    from dimml_export.precision.fp16 import fp16_model
    from dimml_export.precision.int8 import Int8Encoder
    from dimml_training.config import load_config
    from dimml_training.models.encoder import build_encoder

    config = load_config(path)
    torch.manual_seed(config.seed)
    draft = Bundle(
        name="untrained",
        version=1,
        labels=("one", "two"),
        clip_s=config.clip_s,
        encoders=tuple(Encoder(modality=m, features=config.encoders[m.name].width) for m in config.inputs),
        fusion=PAPER,
        created="",
        dimml_version="",
    )
    files: Files = {}
    for spec in model_specs(draft):
        if spec.modality is None:
            continue
        modality = draft.encoder(spec.modality).modality
        encoder = build_encoder(modality, config.encoders[modality.name], 2, weights=False)
        with torch.no_grad():
            encoder(torch.from_numpy(noise(modality.shape, np.dtype(modality.dtype), 4)))
        models = {"fp32": encoder_model(encoder, spec)}
        models["fp16"] = fp16_model(models["fp32"])[0]
        clips = noise(modality.shape, np.dtype(modality.dtype), calibration_clips)
        models["int8"] = Int8Encoder(models["fp32"], clips).model()
        files[modality.name] = {}
        for precision, model in models.items():
            files[modality.name][precision] = folder / f"{modality.name}_{precision}.onnx"
            onnx.save(model, files[modality.name][precision])
    return files


def noise(shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, seed: int = 0) -> npt.NDArray[Any]:
    """Rows of noise, which cost what any rows cost."""
    made = np.random.default_rng(seed).random((rows, *shape), np.float32)
    return (made * 255).astype(np.uint8) if dtype == np.uint8 else made - np.float32(0.5)


class Session:
    """An encoder in one thread, as `dimml serve` makes it on one core."""

    def __init__(self, path: Path) -> None:
        ort = import_quietly("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for entry in exact_int8_sums().items():
            options.add_session_config_entry(*entry)
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        tensor = self._session.get_inputs()[0]
        self._name, self.shape = tensor.name, tuple(tensor.shape[1:])
        self.dtype = np.dtype(np.uint8 if "uint8" in tensor.type else np.float32)

    def logits(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Logits of rows; the features are computed too, as in service."""
        return np.asarray(self._session.run([FEATURES, LOGITS], {self._name: rows})[1])

    def milliseconds(self, rows: npt.NDArray[Any], runs: int) -> float:
        """Median time of a run on these rows."""
        taken = []
        for _ in range(runs):
            began = perf_counter()
            self.logits(rows)
            taken.append(1000 * (perf_counter() - began))
        return statistics.median(taken)


def megabytes(path: Path) -> float:
    """What a fresh process grows by with this encoder."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (path,)) / 1e6


def _growth(path: Path) -> int:
    import_quietly("onnxruntime")
    gc.collect()
    before = pss_bytes([os.getpid()])
    session = Session(path)
    for batch in BATCHES:
        session.logits(noise(session.shape, session.dtype, batch))
    return pss_bytes([os.getpid()]) - before


def measured(files: dict[str, Path], rounds: int, runs: int) -> list[list[str]]:
    """Rows of the table of one modality; ratios are of FP32's time to the precision's, so above 1 is faster."""
    sessions = {name: Session(path) for name, path in files.items()}
    first = next(iter(sessions))
    rows = {batch: noise(sessions[first].shape, sessions[first].dtype, batch) for batch in BATCHES}
    times: dict[tuple[str, int], list[float]] = {(name, batch): [] for name in sessions for batch in BATCHES}
    for number in range(rounds + 1):
        order = list(sessions)[number % len(sessions) :] + list(sessions)[: number % len(sessions)]
        for batch in BATCHES:
            for name in order:
                taken = sessions[name].milliseconds(rows[batch], runs)
                if number:  # the first round warms up
                    times[name, batch].append(taken)
    many = noise(sessions[first].shape, sessions[first].dtype, 32, seed=1)
    wanted = np.concatenate([sessions[first].logits(many[start : start + 8]) for start in range(0, 32, 8)])
    spread = float(np.sqrt(np.square(wanted - wanted.mean(axis=1, keepdims=True)).mean()))
    found = []
    for name, path in files.items():
        logits = np.concatenate([sessions[name].logits(many[start : start + 8]) for start in range(0, 32, 8)])
        away = float(np.sqrt(np.square(logits - wanted).mean())) / spread
        cells = [name]
        for batch in BATCHES:
            cells.append(f"{statistics.median(times[name, batch]):.2f}")
            faster = ratio(list(zip(times[name, batch], times[first, batch], strict=True)))
            cells.append("" if name == first else f"{faster.value:.2f} ({faster.low:.2f} to {faster.high:.2f})")
        cells.append(f"{8000 / statistics.median(times[name, 8]):.0f}")
        cells += [f"{megabytes(path):.0f}", f"{path.stat().st_size / 1e6:.1f}", f"{away:.1%}"]
        found.append(cells)
    return found


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--config", type=Path, help="training config whose encoders are made untrained")
    parser.add_argument("--calibration-clips", type=int, default=16, help="with --config: rows of noise")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5, help="runs of a round; their median counts")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if (asked.config is None) == (asked.repository is None or asked.bundle is None):
        parser.error("give --repository and --bundle, or --config")
    page = Page(asked.out)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    there = int8_instructions()
    with tempfile.TemporaryDirectory() as folder:
        if asked.config is not None:
            files = config_files(asked.config, Path(folder), asked.calibration_clips)
        else:
            files = bundle_files(asked.repository, asked.bundle)
        known = "unknown" if there is None else ", ".join(there) or "none"
        page.add(f"{machine()}; int8 instructions: {known}")
        for modality, paths in files.items():
            head = ["precision", "ms, batch 1", "times as fast", "ms, batch 8", "times as fast", "rows/s, batch 8"]
            head += ["memory, MB", "file, MB", "logits away"]
            page.add(f"{modality}, {asked.rounds} rounds:\n\n{table(head, measured(paths, asked.rounds, asked.runs))}")


if __name__ == "__main__":
    main()
