"""Write a bundle at the paper's sizes without training it, for benchmarks of what serving it costs.

    python benchmarks/paper_bundle.py --out bundles
    python benchmarks/peers.py --repository bundles --bundle paper --version 1 --beside 2 --others 0.05 --out paper.md

The encoders are those of a training config (ResNet-18 by default) with random weights (seed of the config) and batch
statistics of real clips, and so is the fused head: what an answer costs does not depend on the weights, what it says
means nothing. Version 1 is in FP32, version 2 in int8, calibrated on as many clips; accuracy is neither measured nor
promised. Prints how long exporting and quantising took.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from harness.clips import default_clips, read_clips
from harness.report import machine
from peer_servers.pipeline import by_dimml

from dimml import __version__
from dimml.bundle import Bundle, Encoder, ReducedPrecision
from dimml.contract import model_specs
from dimml.fusion import PAPER
from dimml.media.decoders.version import DECODER_VERSION
from dimml_export.encoder_graph import encoder_model
from dimml_export.fusion_graph import fusion_model
from dimml_export.precision.int8 import Int8Encoder
from dimml_export.repository_writer import write_bundle
from dimml_training.config import load_config
from dimml_training.models.encoder import build_encoder

#: Of CREMA-D.
LABELS = ("anger", "disgust", "fear", "happy", "neutral", "sad")
#: Clips that give the batch statistics.
STATISTICS_CLIPS = 8


def decoded(bundle: Bundle, folder: Path, count: int) -> dict[str, npt.NDArray[Any]]:
    """Rows ``[N, *shape]`` of each modality, of recordings that have all of them."""
    rows = [by_dimml(bundle, clip) for clip in read_clips(folder, count)]
    whole = [row for row in rows if all(one is not None for one in row.values())]
    return {m.name: np.stack([row[m.name] for row in whole]) for m in bundle.modalities}  # type: ignore[misc]


def main() -> None:
    """Write both versions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--config", type=Path, default=Path("training/configs/crema_d_paper.yaml"))
    parser.add_argument("--clips", type=Path, default=default_clips(), help="folder of .mp4 files")
    parser.add_argument("--calibration-clips", type=int, default=200)
    parser.add_argument("--name", default="paper")
    parser.add_argument("--out", type=Path, required=True, help="model repository")
    asked = parser.parse_args()

    config = load_config(asked.config)
    torch.manual_seed(config.seed)
    draft = Bundle(
        name=asked.name,
        version=1,
        labels=LABELS,
        clip_s=config.clip_s,
        encoders=tuple(Encoder(modality=m, features=config.encoders[m.name].width) for m in config.inputs),
        fusion=PAPER,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dimml_version=__version__,
        decoder_version=DECODER_VERSION,
        description="Random weights, for benchmarks: its answers mean nothing.",
    )
    clips = decoded(draft, asked.clips, asked.calibration_clips)
    models: dict[str, onnx.ModelProto] = {}
    began = perf_counter()
    for spec in model_specs(draft):
        if spec.modality is not None:
            modality = draft.encoder(spec.modality).modality
            encoder = build_encoder(modality, config.encoders[modality.name], len(LABELS), weights=False)
            with torch.no_grad():
                encoder(torch.from_numpy(clips[modality.name][:STATISTICS_CLIPS]))
            models[modality.name] = encoder_model(encoder, spec)
    exported_s, began = perf_counter() - began, perf_counter()
    int8 = {name: Int8Encoder(model, clips[name]) for name, model in models.items()}
    quantised = {name: one.model() for name, one in int8.items()}
    quantised_s = perf_counter() - began

    features = sum(encoder.features for encoder in draft.encoders)
    rng = np.random.default_rng(config.seed)
    weight = (rng.standard_normal((len(LABELS), features)) / features**0.5).astype(np.float32)
    fusion = fusion_model(draft, weight, np.zeros(len(LABELS), np.float32), None)
    asked.out.mkdir(parents=True, exist_ok=True)
    first = write_bundle(asked.out, draft, models, fusion)
    used = min(map(len, clips.values()))
    record = ReducedPrecision(
        precision="int8",
        float_version=first.version,
        calibration_clips=used,
        layers={name: len(one.layers) for name, one in int8.items()},
        left_in_float=dict.fromkeys(models, ()),
        clips=used,
        before={},
        after={},
    )
    second = write_bundle(asked.out, draft.model_copy(update={"reduced_precision": record}), quantised, fusion)
    print(machine())
    print(f"{asked.name} in {asked.out}: fp32 is version {first.version}, int8 version {second.version}")
    print(f"to ONNX: {exported_s:.0f} s; calibration on {used} clips and quantisation: {quantised_s:.0f} s")


if __name__ == "__main__":
    main()
