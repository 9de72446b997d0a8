"""A small real bundle, made in milliseconds without training: real ONNX encoders, fusion, manifest and hashes.

The encoders do mean something. Class ``k`` sounds like a tone of ``tone_hz(k)`` and looks like a picture of
``colour(k)``, and ``tiny_row`` makes such inputs, so that a test can say which label an answer must have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dimml import __version__
from dimml.bundle import Bundle, Encoder
from dimml.contract import FEATURES, LOGITS, ModelSpec, model_specs
from dimml.fusion import Certainty, FusionParameters, FusionSpec, Pooling
from dimml.media.decoders.version import DECODER_VERSION
from dimml.modality import Frames, Modality, Waveform
from dimml.monitoring.reference import Reference
from dimml.prediction_sets.thresholds import PredictionSets
from dimml_export.fusion_graph import fusion_model
from dimml_export.onnx_graph import finished_model
from dimml_export.repository_writer import write_bundle
from dimml_export.tensorrt.config import TensorRT
from dimml_export.tensorrt.samples import Samples
from support.reliability import random_reliability

AUDIO = Waveform(name="audio", sample_rate_hz=8000, samples=4000)
VISUAL = Frames(name="visual", frames=4, height=16, width=16)
#: A second camera, for bundles with three modalities.
REAR = Frames(name="rear", tensor="REAR_FRAMES", frames=1, height=16, width=16)

#: A row that holds this value anywhere makes an encoder with ``nan=`` give NaN for that row.
NAN_SAMPLE = 0.5
NAN_PIXEL = 77

#: Trips of the stalling encoder's loop: more seconds than any deadline here, on any core, unless it is told to stop.
STALL_TRIPS = 12_000_000

FEATURES_WIDTH = 8


def make_tiny_bundle(
    repository: Path,
    *,
    name: str = "tiny",
    modalities: Sequence[Modality] = (AUDIO, VISUAL),
    labels: Sequence[str] = ("red", "green", "blue"),
    fused_head: bool = True,
    certainty: Certainty = "max_prob",
    temperature: float | None = 1.0,
    pooling: Pooling = "logits",
    clip_s: float = 0.5,
    deadline_ms: float = 2000.0,
    max_batch_size: int = 32,
    stall: str | None = None,
    raises: str | None = None,
    nan: str | None = None,
    tensorrt: TensorRT | None = None,
    samples: Samples | None = None,
    reference: Reference | None = None,
    prediction_sets: PredictionSets | None = None,
) -> Bundle:
    """Write a bundle into ``repository`` as its next version; the manifest as written.

    ``stall``, ``raises`` and ``nan`` name the modality whose encoder runs for seconds (and stops when
    ``RunOptions.terminate`` is set), raises, or gives NaN for rows that hold ``NAN_SAMPLE`` or
    ``NAN_PIXEL``. Rows of zeros, as of a server's warm-up, neither stall nor raise.
    """
    draft = Bundle(
        name=name,
        version=1,
        labels=tuple(labels),
        clip_s=clip_s,
        encoders=tuple(
            Encoder(modality=modality, features=FEATURES_WIDTH, deadline_ms=deadline_ms) for modality in modalities
        ),
        fusion=FusionSpec(certainty=certainty, temperature=temperature, fused_head=fused_head, pooling=pooling),
        max_batch_size=max_batch_size,
        created="2026-01-01T00:00:00+00:00",
        dimml_version=__version__,
        decoder_version=DECODER_VERSION,
        description="Tones and colours, for tests.",
        reference=reference,
        prediction_sets=prediction_sets,
    )
    classes = len(labels)
    encoders = {
        spec.modality: _encoder(
            spec,
            draft.encoder(spec.modality).modality,
            classes,
            stall=spec.modality == stall,
            raises=spec.modality == raises,
            nan=spec.modality == nan,
        )
        for spec in model_specs(draft)
        if spec.modality is not None
    }
    weight = bias = None
    if fused_head:
        # The mean of the encoders' own heads, as one linear layer on the concatenated features.
        heads = [_head(modality, classes) for modality in modalities]
        weight = np.concatenate([head[0] for head in heads]).T / len(heads)
        bias = np.sum([head[1] for head in heads], axis=0) / len(heads)
    fusion = fusion_model(draft, weight, bias, tiny_parameters(draft))
    return write_bundle(repository, draft, encoders, fusion, tensorrt=tensorrt, samples=samples)


def tiny_parameters(bundle: Bundle) -> FusionParameters:
    """What a tiny bundle of a learned certainty has for learned: the same for the same heads, and no knowledge."""
    widths = [encoder.features for encoder in bundle.encoders]
    rng = np.random.default_rng(11)
    cross = bundle.fusion.certainty == "cross_reliability"
    heads = [random_reliability(rng, width, bundle.classes, cross=cross) for width in (*widths, sum(widths))]
    return FusionParameters(tuple(heads[: len(bundle.heads)]))


def tiny_row(modality: Modality, label_index: int, classes: int = 3) -> npt.NDArray[Any]:
    """One row, ``modality.shape``, that the tiny encoders take for class ``label_index``; it passes quality."""
    if isinstance(modality, Waveform):
        time_s = np.arange(modality.samples) / modality.sample_rate_hz
        return (0.4 * np.sin(2 * np.pi * tone_hz(label_index) * time_s)).astype(np.float32)
    row = np.empty(modality.shape, np.uint8)
    row[:] = colour(label_index, modality.shape[-1], classes)
    # A mark that moves from frame to frame, so that the picture does not pass for a frozen one.
    for index, frame in enumerate(row):
        frame[0, index % modality.width] = 255
    return row


def tone_hz(label_index: int) -> float:
    """The tone that class ``label_index`` sounds like."""
    return 400.0 + 250.0 * label_index


def colour(label_index: int, channels: int = 3, classes: int = 3) -> npt.NDArray[np.uint8]:
    """The colour, ``[channels]``, that class ``label_index`` looks like: red, green, blue where there are three."""
    angles = 2 * np.pi * (label_index / classes - np.arange(channels) / 3)
    return np.round(127.5 + 112.5 * np.cos(angles)).astype(np.uint8)


def _head(modality: Modality, classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Linear head on the features: weight ``[D, C]`` and bias ``[C]``."""
    if classes > FEATURES_WIDTH and isinstance(modality, Waveform):
        raise ValueError(f"the tiny waveform encoder tells at most {FEATURES_WIDTH} classes apart")
    weight_DC = np.zeros((FEATURES_WIDTH, classes), np.float32)
    if isinstance(modality, Waveform):
        weight_DC[:classes] = 6.0 * np.eye(classes)
        return weight_DC, np.zeros(classes, np.float32)
    channels = modality.shape[-1]
    # Squared distance of the mean colour to each class's, less the part common to all, is linear in the mean.
    anchors_CK = np.stack([colour(k, channels, classes) for k in range(classes)]).astype(np.float32) / 255
    weight_DC[:channels] = 20.0 * anchors_CK.T
    return weight_DC, (-10.0 * (anchors_CK**2).sum(axis=1)).astype(np.float32)


def _encoder(
    spec: ModelSpec, modality: Modality, classes: int, *, stall: bool, raises: bool, nan: bool
) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(value: Any, dtype: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(constants)}"))
        return constants[-1].name

    def add(op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        result = out or f"v{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [result], **attributes))
        return result

    rows = add("Cast", modality.tensor, to=TensorProto.FLOAT)
    inner_axes = list(range(1, 1 + len(modality.shape)))
    if isinstance(modality, Waveform):
        features = _band_shares(modality, classes, rows, add, constant)
    else:
        mean = add("ReduceMean", rows, constant(inner_axes[:-1], np.int64), keepdims=0)
        unit = add("Div", mean, constant(255.0))
        features = add("Pad", unit, constant([0, 0, 0, FEATURES_WIDTH - modality.shape[-1]], np.int64))
    if nan:
        trigger = constant(NAN_SAMPLE if isinstance(modality, Waveform) else NAN_PIXEL)
        hits = add("Cast", add("Equal", rows, trigger), to=TensorProto.FLOAT)
        hit_B = add("ReduceMax", hits, constant(inner_axes, np.int64), keepdims=0)
        hit_B1 = add("Unsqueeze", add("Greater", hit_B, constant(0.5)), constant([1], np.int64))
        features = add("Where", hit_B1, constant(np.nan), features)
    if raises:
        # An index out of range, computed from the input so that no optimiser sees it coming.
        index = add("Mul", _any_signal(rows, add), constant(99, np.int64))
        features = add("Add", features, add("Gather", constant([0.0]), index))
    if stall:
        features = _stalled(features, _any_signal(rows, add), add, constant)
    add("Identity", features, out=FEATURES)
    weight_DC, bias_C = _head(modality, classes)
    add("Gemm", FEATURES, constant(weight_DC), constant(bias_C), out=LOGITS)
    return finished_model(nodes, constants, spec)


def _band_shares(modality: Waveform, classes: int, rows: str, add: Any, constant: Any) -> str:
    """Share of each class's tone in the energy of all of them, ``[B, D]``, by projection on sine and cosine."""
    time_s = np.arange(modality.samples) / modality.sample_rate_hz
    basis_SD = np.zeros((2, modality.samples, FEATURES_WIDTH), np.float32)
    for k in range(classes):
        phase = 2 * np.pi * tone_hz(k) * time_s
        basis_SD[:, :, k] = np.sin(phase), np.cos(phase)
    parts = [add("MatMul", rows, constant(basis / modality.samples)) for basis in basis_SD]
    energy = add("Add", *(add("Mul", part, part) for part in parts))
    total = add("ReduceSum", energy, constant([1], np.int64), keepdims=1)
    return str(add("Div", energy, add("Add", total, constant(1e-9))))


def _any_signal(rows: str, add: Any) -> str:
    """1 where any input is not zero, else 0, ``[]`` INT64: a server's warm-up runs encoders on zeros."""
    return str(add("Cast", add("Sign", add("ReduceMax", add("Abs", rows), keepdims=0)), to=TensorProto.INT64))


def _stalled(features: str, any_signal: str, add: Any, constant: Any) -> str:
    """The same features, after a loop of ``STALL_TRIPS`` additions where ``any_signal`` is 1."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "stall",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    # Depends on the input, so that constant folding cannot run the loop when the session is made.
    trips = add("Mul", any_signal, constant(STALL_TRIPS, np.int64))
    end = add("Loop", trips, constant(True, np.bool_), constant(0.0), body=body)
    return str(add("Add", features, add("Mul", end, constant(0.0))))
