"""What a learned reliability costs: the fusion graph with it against the paper's, in ONNX Runtime on one thread.

    python benchmarks/fusion.py --features 128 --classes 10

The weights are random: time does not depend on them. Calls of all graphs are interleaved, and medians compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter, thread_time
from typing import Any, Final

import numpy as np

from dimml import __version__
from dimml.bundle import Bundle, Encoder
from dimml.contract import PRESENT, PROBABILITIES, features_input, logits_input
from dimml.fusion import CROSS_STATISTICS, PAPER, STATISTICS, FusionParameters, FusionSpec, HeadReliability
from dimml.modality import Frames, Waveform
from dimml.system.outbound import import_quietly
from dimml_export.fusion_graph import fusion_model
from dimml_training.fusion_selection.reliability_fit import MOST_NEIGHBOURS, stored_neighbours

UNITS: Final = 16
GRAPHS: Final = {
    "the paper's": PAPER,
    "reliability, logits": FusionSpec(certainty="reliability", temperature=0.1, fused_head=True),
    "reliability, product": FusionSpec(certainty="reliability", temperature=None, fused_head=True, pooling="product"),
    "reliability, product, no fused head": FusionSpec(
        certainty="reliability", temperature=None, fused_head=False, pooling="product"
    ),
    "cross-reliability, product": FusionSpec(
        certainty="cross_reliability", temperature=None, fused_head=True, pooling="product"
    ),
}


def main() -> None:
    """Print microseconds per call, what that is more than the paper's graph, and the ratio to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=128, help="width of each of the two encoders' features")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--calls", type=int, default=2000, help="of each graph")
    given = parser.parse_args()
    for batch in (1, 32):
        calls = {name: _call(spec, given.features, given.classes, batch) for name, spec in GRAPHS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        processor_s: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(given.calls):
            for name, call in calls.items():
                processor, began = thread_time(), perf_counter()
                call()
                seconds[name].append(perf_counter() - began)
                processor_s[name].append(thread_time() - processor)
        paper_s = median(seconds["the paper's"])
        for name, taken in seconds.items():
            added_s = median(taken) - paper_s
            print(
                f"batch {batch:2}  {name:36} {1e6 * median(taken):7.1f} us  adds {1e6 * added_s:7.1f}  "
                f"x {median(taken) / paper_s:.2f}  processor {1e6 * median(processor_s[name]):7.1f}"
            )


def _call(fusion: FusionSpec, features: int, classes: int, batch: int) -> Callable[[], Any]:
    """One run of a fusion graph on random rows."""
    modalities = (
        Waveform(name="audio", sample_rate_hz=16_000, samples=16_000),
        Frames(name="visual", frames=8, height=64, width=64),
    )
    bundle = Bundle(
        name="measured",
        version=1,
        labels=tuple(f"class_{index}" for index in range(classes)),
        clip_s=1.0,
        encoders=tuple(Encoder(modality=modality, features=features) for modality in modalities),
        fusion=fusion,
        created="",
        dimml_version=__version__,
    )
    rng = np.random.default_rng(0)
    weight = bias = None
    widths = [features, features]
    if fusion.fused_head:
        weight = rng.normal(size=(classes, 2 * features)).astype(np.float32)
        bias = np.zeros(classes, np.float32)
        widths.append(2 * features)
    heads = [_reliability(rng, width, classes, cross=fusion.certainty == "cross_reliability") for width in widths]
    if fusion.certainty == "cross_reliability":
        # As of a run whose clips have both modalities: of the same clips for every head.
        stored = rng.normal(size=(MOST_NEIGHBOURS, 2 * features)).astype(np.float32)
        seen = (stored[:, :features], stored[:, features:], stored)
        labels = np.zeros(len(stored), np.int64)
        heads = [
            replace(head, neighbours_ND=stored_neighbours(own, labels)) for head, own in zip(heads, seen, strict=False)
        ]
    learned = FusionParameters(tuple(heads))
    onnxruntime = import_quietly("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = fusion_model(bundle, weight, bias, learned).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {PRESENT: np.ones((batch, 2), np.bool_)}
    for modality in modalities:
        feeds[features_input(modality.name)] = rng.normal(size=(batch, features)).astype(np.float32)
        feeds[logits_input(modality.name)] = rng.normal(size=(batch, classes)).astype(np.float32)
    return lambda: session.run([PROBABILITIES], feeds)


def _reliability(rng: np.random.Generator, width: int, classes: int, *, cross: bool) -> HeadReliability:
    def drawn(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    statistics = len(CROSS_STATISTICS if cross else STATISTICS)
    return HeadReliability(
        whitening_DD=drawn(width, width),
        whitened_means_CD=drawn(classes, width),
        offset_K=drawn(statistics),
        scale_K=np.ones(statistics, np.float32),
        hidden_weight_KU=drawn(statistics, UNITS),
        hidden_bias_U=drawn(UNITS),
        out_weight_U=drawn(UNITS),
        out_bias=drawn(1),
    )


if __name__ == "__main__":
    main()
