"""What an encoder's graph becomes before TensorRT sees it, on real exported encoders, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from dimml.contract import ModelSpec, TensorSpec
from dimml.errors import BundleError
from dimml.modality import Flow, Frames, Waveform
from dimml_export.encoder_graph import encoder_model
from dimml_export.onnx_graph import finished_model
from dimml_export.tensorrt.graph import network_model, nodes_in_fp32
from dimml_export.tensorrt.operators import SUPPORTED, check_operators
from dimml_training.config import parse_config
from dimml_training.models.encoder import build_encoder

RESNET = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "strided"}
#: A vision transformer: attention, LayerNorm, GELU.
VIT = {
    "kind": "huggingface",
    "model_type": "vit",
    "config": {
        "hidden_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 8,
        "image_size": 16,
    },
}
SOUND = {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 4000}
FRAMES = {"kind": "frames", "name": "visual", "frames": 3, "height": 16, "width": 16}
ENCODERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sound": (SOUND, {"backbone": RESNET, "spectrogram": {"mels": 16}}),
    "sound_learned": (SOUND, {"backbone": RESNET, "spectrogram": {"normalise": "learned"}}),
    "grey_clip": (
        FRAMES,
        {"backbone": RESNET, "grey": True, "normalise": "clip", "pooling": {"kind": "temporal_conv"}},
    ),
    "flow": ({"kind": "flow", "name": "motion", "frames": 2, "height": 16, "width": 16}, {"backbone": RESNET}),
    "vit": (FRAMES, {"backbone": VIT, "features": 8}),
}
INPUTS = {"float32": "FP32", "uint8": "UINT8"}
EVERY_ENCODER = pytest.mark.parametrize(
    "name",
    [
        # The sound's is exported for other tests, too.
        pytest.param(name, marks=() if name == "sound" else pytest.mark.slow(reason="exports an encoder"))
        for name in ENCODERS
    ],
)


@cache
def exported(name: str) -> onnx.ModelProto:
    """An encoder with weights as drawn and batch statistics of noise."""
    given, encoder = ENCODERS[name]
    document = {
        "name": "x",
        "clip_s": 0.5,
        "data": {"manifest": "clips.csv"},
        "modalities": [{"input": given, "encoder": encoder}],
    }
    config = parse_config(document, "test")
    (modality,) = config.inputs
    torch.manual_seed(3)
    module = build_encoder(modality, config.encoders[modality.name], 4)
    for _ in range(3):
        module(torch.from_numpy(clips(modality)))
    outputs = (
        TensorSpec("FEATURES", "FP32", (config.encoders[modality.name].width,)),
        TensorSpec("LOGITS", "FP32", (4,)),
    )
    datatype: Any = INPUTS[modality.dtype.name]
    inputs = (TensorSpec(modality.tensor, datatype, modality.shape),)
    return encoder_model(module, ModelSpec(f"x_{modality.name}", "encoder", 8, inputs, outputs, modality.name))


def clips(modality: Waveform | Frames | Flow, loudness: float = 0.3) -> npt.NDArray[Any]:
    rng = np.random.default_rng(5)
    if isinstance(modality, Waveform):
        return (loudness * rng.standard_normal((5, *modality.shape))).astype(np.float32)
    return rng.integers(0, 256, (5, *modality.shape), dtype=np.uint8)


def rows(name: str) -> npt.NDArray[Any]:
    value = exported(name).graph.input[0]
    shape = [5, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]
    rng = np.random.default_rng(6)
    if value.type.tensor_type.elem_type == TensorProto.UINT8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)


def run(model: onnx.ModelProto, tensor: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[npt.NDArray[np.float32]] = session.run(["FEATURES", "LOGITS"], {model.graph.input[0].name: tensor})
    return outputs


def interface(model: onnx.ModelProto) -> list[bytes]:
    return [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value, as ONNX's own type inference sees it."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


@EVERY_ENCODER
def test_parser_has_every_operator_of_our_encoders(name: str) -> None:
    check_operators(exported(name))
    for precision in ("fp32", "fp16"):
        check_operators(network_model(exported(name), precision))


def test_an_operator_that_the_parser_lacks_is_named() -> None:
    spec = ModelSpec(
        "x_audio", "encoder", 4, (TensorSpec("IN", "FP32", (3,)),), (TensorSpec("OUT", "FP32", (3,)),), "audio"
    )
    model = finished_model([helper.make_node("Bernoulli", ["IN"], ["OUT"], name="dice")], [], spec)
    with pytest.raises(BundleError, match=r"x_audio: TensorRT's ONNX parser has no operator Bernoulli \(node 'dice'\)"):
        check_operators(model)
    assert {"Conv", "Log", "LayerNormalization"} < SUPPORTED


@EVERY_ENCODER
def test_fp32_changes_no_number_and_casts_pixels_before_anything_else(name: str) -> None:
    model = exported(name)
    changed = network_model(model, "fp32")
    assert interface(changed) == interface(model)
    for ours, theirs in zip(run(changed, rows(name)), run(model, rows(name)), strict=True):
        # Not equal to the bit: ONNX Runtime fuses other nodes.
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    pixels = {v.name for v in changed.graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8}
    assert {node.op_type for node in changed.graph.node if pixels & set(node.input)} == ({"Cast"} if pixels else set())
    assert TensorProto.UINT8 not in [kind for value, kind in types(changed).items() if value not in pixels]


@EVERY_ENCODER
def test_fp16_keeps_preprocessing_normalisations_and_logits_in_fp32(name: str) -> None:
    model = exported(name)
    changed = network_model(model, "fp16")
    assert interface(changed) == interface(model)
    known = types(changed)
    by_type: dict[int, set[str]] = {TensorProto.FLOAT: set(), TensorProto.FLOAT16: set()}
    for node in changed.graph.node:
        if node.op_type != "Cast":
            kinds = {known[value] for value in node.input if value and known[value] in by_type}
            assert len(kinds) <= 1, f"{node.name} mixes precisions, which TensorRT refuses"
            for kind in kinds:
                by_type[kind].add(node.op_type)
    assert by_type[TensorProto.FLOAT16].isdisjoint({"Log", "Sqrt", "Pow", "LayerNormalization"})
    assert by_type[TensorProto.FLOAT16] & {"Conv", "MatMul", "Gemm"}, "nothing is left to be quick"
    full = [node for node in changed.graph.node if known[node.output[0]] == TensorProto.FLOAT]
    assert "LOGITS" in {value for node in full for value in node.output}
    for weight in ("spectrogram.basis", "spectrogram.mel", "luminance", "spectrogram.learned", "head.weight"):
        assert not [v for v in known if weight in v and known[v] == TensorProto.FLOAT16], weight
    for ours, theirs in zip(run(changed, rows(name)), run(model, rows(name)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2 * max(1.0, float(np.abs(theirs).max())))
        assert np.abs(ours - theirs).max() > 0, "nothing was lowered"


def lowered_throughout(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    with monkeypatch.context() as patch:
        patch.setattr("dimml_export.tensorrt.graph.nodes_in_fp32", lambda model: frozenset())
        return network_model(model, "fp16")


def half_run(model: onnx.ModelProto, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Logits by ONNX's reference implementation: ONNX Runtime's CPU kernels skip most of the rounding to FP16."""
    with np.errstate(all="ignore"):
        logits: npt.NDArray[np.float32] = ReferenceEvaluator(model).run(["LOGITS"], {"WAVEFORM": tensor})[0]
    return logits


def test_quiet_sound_is_spoilt_by_fp16_throughout_and_not_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whisper with peaks at -79 dBFS counts as signal, and its power is no number of FP16."""
    model = exported("sound")
    tensor = rows("sound")[:2] * np.float32(1e-4)
    wanted = run(model, tensor)[1]
    ours = half_run(network_model(model, "fp16"), tensor)
    np.testing.assert_allclose(ours, wanted, atol=2e-2 * max(1.0, float(np.abs(wanted).max())))
    # Far off, or no number at all.
    throughout = half_run(lowered_throughout(model, monkeypatch), tensor)
    assert not np.abs(throughout - wanted).max() <= 0.1 * np.abs(wanted).max()


def make(nodes: list[onnx.NodeProto], datatype: Any = "FP32", weight: str = "embed.backbone.w") -> onnx.ModelProto:
    spec = ModelSpec(
        "x_odd",
        "encoder",
        4,
        (TensorSpec("IN", datatype, (3,)),),
        (TensorSpec("FEATURES", "FP32", (3,)), TensorSpec("LOGITS", "FP32", (3,))),
        "odd",
    )
    constants = [
        onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), weight),
        onnx.numpy_helper.from_array(np.float32(1e6), "embed.backbone.large"),
        onnx.numpy_helper.from_array(np.float32(1e-9), "tiny"),
    ]
    used = {value for node in nodes for value in node.input}
    return finished_model(nodes, [c for c in constants if c.name in used], spec)


def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


def test_what_leads_to_a_small_number_inside_a_backbone_stays_fp32_back_to_its_weights() -> None:
    model = make(
        [
            node("MatMul", ["IN", "embed.backbone.w"], "mixed", name="mix"),
            node("Abs", ["mixed"], "size", name="size"),
            node("Add", ["size", "tiny"], "offset", name="offset"),
            node("Log", ["offset"], "log", name="log"),
            node("MatMul", ["log", "embed.backbone.w"], "again", name="again"),
            node("Relu", ["again"], "FEATURES", name="relu"),
            node("Mul", ["FEATURES", "embed.backbone.large"], "LOGITS", name="large"),
        ]
    )
    assert nodes_in_fp32(model) == {"size", "offset", "log", "large"}
    tensor = np.array([[0.0, 1.0, -2.0]], np.float32)
    features, _ = run(network_model(model, "fp16"), tensor)
    np.testing.assert_allclose(features, run(model, tensor)[0], atol=2e-2)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: make(
                [
                    node("MatMul", ["IN", "w"], "FEATURES"),
                    node("Identity", ["FEATURES"], "LOGITS"),
                ],
                weight="w",
            ),
            "no weight of the graph is named as a backbone's.*--fp32",
        ),
        (
            lambda: make(
                [
                    node("Add", ["IN", "IN"], "twice", name="twice"),
                    node("Cast", ["twice"], "floats", to=TensorProto.FLOAT),
                    node("MatMul", ["floats", "embed.backbone.w"], "FEATURES"),
                    node("Identity", ["FEATURES"], "LOGITS"),
                ],
                "UINT8",
            ),
            r"node twice \(Add\) reckons with UINT8 pixels",
        ),
    ],
)
def test_graphs_that_cannot_be_made_ready_are_refused(model: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        network_model(model(), "fp16")
