"""The fusion graph against ``dimml.fusion``, which states the same mathematics in numpy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimml import __version__
from dimml.bundle import Bundle, Encoder
from dimml.contract import features_input, logits_input, model_specs
from dimml.errors import BundleError
from dimml.fusion import Certainty, Fused, FusionParameters, FusionSpec, Pooling, fuse, heads_present
from dimml.modality import Frames, Waveform
from dimml_export.fusion_graph import fusion_model
from dimml_export.onnx_graph import IR_VERSION, OPSET
from dimml_export.tensorrt.operators import SUPPORTED
from support.tiny_bundle import tiny_parameters

CLASSES = 4
MEASURES, POOLINGS = get_args(Certainty), get_args(Pooling)
WIDTHS = (5, 3, 7)
PAPER = FusionSpec(fused_head=True)
#: What the graph may be made of: all of them stand in the operator tables of TensorRT's ONNX parser, 8.4 and 10.15.
PLAIN_OPERATORS = {
    *("Add", "And", "ArgMax", "Cast", "Clip", "Concat", "Div", "Exp", "Gather", "GatherElements", "Gemm"),
    *(
        "Log",
        "MatMul",
        "Max",
        "Mul",
        "Or",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
        "Sigmoid",
        "Slice",
        "Reshape",
        "Softmax",
        "Split",
        "Transpose",
        "Sqrt",
    ),
    *("Squeeze", "Sub", "Tanh", "TopK", "Unsqueeze", "Where"),
}
FUSED_RNG = np.random.default_rng(7)
FUSED_WEIGHT = FUSED_RNG.normal(size=(CLASSES, sum(WIDTHS))).astype(np.float32)
FUSED_BIAS = FUSED_RNG.normal(size=CLASSES).astype(np.float32)


@cache
def made(modalities: int, spec: FusionSpec) -> tuple[Bundle, Any]:
    """A bundle of that form, and its fusion graph in a session."""
    kinds = (
        Waveform(name="audio", sample_rate_hz=8000, samples=100),
        Frames(name="visual", frames=1, height=8, width=8),
        Frames(name="rear", tensor="REAR", frames=1, height=8, width=8),
    )
    bundle = Bundle(
        name="x",
        version=1,
        labels=("a", "b", "c", "d"),
        clip_s=1.0,
        encoders=tuple(Encoder(modality=m, features=w) for m, w in zip(kinds[:modalities], WIDTHS, strict=False)),
        fusion=spec,
        created="2026-01-01T00:00:00+00:00",
        dimml_version=__version__,
    )
    weight, bias = (FUSED_WEIGHT[:, : sum(WIDTHS[:modalities])], FUSED_BIAS) if spec.fused_head else (None, None)
    model = fusion_model(bundle, weight, bias, tiny_parameters(bundle))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # No pool each: these sessions stay, over two hundred of them.
    return bundle, ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_graph(
    bundle: Bundle, session: Any, features: list[Any], logits: list[Any], present: npt.NDArray[np.bool_]
) -> Fused:
    feeds: dict[str, Any] = {"PRESENT": present}
    for modality, feature, logit in zip(bundle.modalities, features, logits, strict=True):
        feeds[features_input(modality.name)] = feature
        feeds[logits_input(modality.name)] = logit
    return Fused(*session.run(["PROBABILITIES", "LOGITS", "CERTAINTY", "WEIGHTS"], feeds))


def by_numpy(
    bundle: Bundle,
    features: list[Any],
    logits: list[Any],
    present: npt.NDArray[np.bool_],
    parameters: FusionParameters | None = None,
) -> Fused:
    heads, seen = list(logits), list(features)
    if bundle.fusion.fused_head:
        width = sum(f.shape[1] for f in features)
        seen.append(np.concatenate(features, axis=1))
        heads.append(seen[-1] @ FUSED_WEIGHT[:, :width].T + FUSED_BIAS)
    return fuse(
        np.stack(heads, axis=1),
        heads_present(present, bundle.fusion.fused_head),
        bundle.fusion,
        parameters or tiny_parameters(bundle),
        seen,
    )


def random_inputs(
    rng: np.random.Generator, modalities: int, present: npt.NDArray[np.bool_], rubbish: float, scale: float = 3.0
) -> tuple[list[Any], list[Any]]:
    """Features and logits per modality, with ``rubbish`` in every masked slot."""
    features, logits = [], []
    for index, width in enumerate(WIDTHS[:modalities]):
        masked = ~present[:, [index]]
        features.append(np.where(masked, np.float32(rubbish), rng.normal(size=(len(present), width))))
        logits.append(np.where(masked, np.float32(rubbish), scale * rng.normal(size=(len(present), CLASSES))))
    return [f.astype(np.float32) for f in features], [z.astype(np.float32) for z in logits]


def assert_same(graph: Fused, numpy: Fused, largest: float = 0.0) -> None:
    """``largest``: of the heads' logits, which FP32 sums no finer than a millionth of."""
    summed = max(2e-5, 1e-6 * largest)
    tolerances = {"probabilities_BC": summed, "logits_BC": summed, "certainty_BH": 2e-5, "weights_BH": 2e-5}
    for field, atol in tolerances.items():
        np.testing.assert_allclose(getattr(graph, field), getattr(numpy, field), atol=atol, rtol=2e-5, err_msg=field)


@st.composite
def specs(draw: st.DrawFn, modalities: int, fused_head: bool) -> FusionSpec:
    """Any choice of the fusion."""
    calibration = (0.5, 2.0, 1.25, 0.8)[: modalities + fused_head]
    return FusionSpec(
        certainty=draw(st.sampled_from(MEASURES)),
        temperature=draw(st.sampled_from([None, 0.1, 1.0])),
        fused_head=fused_head,
        pooling=draw(st.sampled_from(POOLINGS)),
        head_temperatures=draw(st.sampled_from([None, calibration])),
        answer_temperature=draw(st.sampled_from([1.0, 1.5])),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("fused_head", [True, False])
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_graph_equals_numpy(modalities: int, fused_head: bool, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 5))
    rows = st.lists(st.lists(st.booleans(), min_size=modalities, max_size=modalities), min_size=batch, max_size=batch)
    present = np.array(data.draw(rows))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rubbish = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0]))
    scale = data.draw(st.sampled_from([0.01, 1.0, 10.0, 1000.0]))
    bundle, session = made(modalities, data.draw(specs(modalities, fused_head)))
    features, logits = random_inputs(rng, modalities, present, rubbish, scale)
    graph = by_graph(bundle, session, features, logits, present)
    # Clean inputs on the numpy side where overflow in the masked slots would only make numpy warn.
    clean = [np.where(present[:, [i]], f, 0).astype(np.float32) for i, f in enumerate(features)]
    assert_same(graph, by_numpy(bundle, clean, logits, present), largest=5 * scale)
    heads = heads_present(present, fused_head)
    assert (graph.weights_BH[~heads] == 0).all()
    assert (graph.certainty_BH[~heads] == 0).all()
    answered = present.any(axis=1)
    np.testing.assert_allclose(graph.weights_BH.sum(axis=1), answered.astype(float), atol=1e-5)


@pytest.mark.parametrize(("measure", "pooling"), list(product(MEASURES, POOLINGS)))
def test_every_certainty_and_pooling_with_and_without_a_modality(measure: Certainty, pooling: Pooling) -> None:
    present = np.array([[True, True], [False, True], [True, False], [False, False]] * 3)
    for fused_head, temperature in product([True, False], [None, 0.1]):
        spec = FusionSpec(certainty=measure, temperature=temperature, fused_head=fused_head, pooling=pooling)
        bundle, session = made(2, spec)
        features, logits = random_inputs(np.random.default_rng(9), 2, present, np.nan)
        fused = by_graph(bundle, session, features, logits, present)
        clean = [np.where(present[:, [i]], f, 0).astype(np.float32) for i, f in enumerate(features)]
        assert_same(fused, by_numpy(bundle, clean, logits, present))
        nothing = ~present.any(axis=1)
        assert (fused.weights_BH[nothing] == 0).all()
        assert (fused.logits_BC[nothing] == 0).all()
        np.testing.assert_allclose(fused.probabilities_BC[nothing], 1 / CLASSES)


@pytest.mark.parametrize("scale", [1e3, 1e20])
@pytest.mark.parametrize("certainty", ["reliability", "cross_reliability"])
@pytest.mark.parametrize("fused_head", [False, True])
def test_features_and_logits_however_large_give_a_finite_reliability(
    scale: float, certainty: Literal["reliability", "cross_reliability"], fused_head: bool
) -> None:
    spec = FusionSpec(certainty=certainty, temperature=0.1, fused_head=fused_head, pooling="product")
    bundle, session = made(2, spec)
    present = np.ones((4, 2), np.bool_)
    features, logits = random_inputs(np.random.default_rng(1), 2, present, 0.0, scale)
    features = [(scale * own).astype(np.float32) for own in features]
    graph = by_graph(bundle, session, features, logits, present)
    assert_same(graph, by_numpy(bundle, features, logits, present))
    assert np.isfinite(graph.certainty_BH).all()
    assert np.isfinite(graph.probabilities_BC).all()


@pytest.mark.parametrize("fewer", [0, 7, 20], ids=["same clips", "fewer of the fused head", "fewer than are nearest"])
def test_stored_features_of_the_same_clips_and_of_others(fewer: int) -> None:
    bundle, _ = made(3, FusionSpec(certainty="cross_reliability", temperature=0.1, fused_head=True))
    rng = np.random.default_rng(5)
    # One clip without any feature of its own, and one without those of a modality.
    clips = rng.normal(size=(24, sum(WIDTHS)))
    clips[0], clips[1, : WIDTHS[0]] = 0, 0
    seen = (*np.split(clips, np.cumsum(WIDTHS)[:-1], axis=1), clips[fewer:])
    unit = [own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12) for own in seen]
    learned = [
        replace(head, neighbours_ND=own.astype(np.float32))
        for head, own in zip(tiny_parameters(bundle).reliability or (), unit, strict=True)
    ]
    parameters = FusionParameters(tuple(learned))
    model = fusion_model(bundle, FUSED_WEIGHT, FUSED_BIAS, parameters)
    held = {tuple(initializer.dims) for initializer in model.graph.initializer}
    assert ((sum(WIDTHS), 24 - fewer) in held) == bool(fewer)  # What the modalities' heads store is not stored twice.
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    present = np.array(list(product([True, False], repeat=3)) * 2)
    features, logits = random_inputs(rng, 3, present, np.nan)
    clean = [np.where(present[:, [i]], f, 0).astype(np.float32) for i, f in enumerate(features)]
    graph = by_graph(bundle, session, features, logits, present)
    assert_same(graph, by_numpy(bundle, clean, logits, present, parameters))


def test_a_masked_row_does_not_touch_its_neighbours() -> None:
    bundle, session = made(2, PAPER)
    present = np.array([[True, True], [False, True], [True, False], [False, False]])
    features, logits = random_inputs(np.random.default_rng(3), 2, present, np.nan)
    together = by_graph(bundle, session, features, logits, present)
    for row in range(4):
        one = slice(row, row + 1)
        alone = by_graph(bundle, session, [f[one] for f in features], [z[one] for z in logits], present[one])
        np.testing.assert_allclose(together.probabilities_BC[one], alone.probabilities_BC, atol=1e-6)
    # One modality alone: the fused logits are its own.
    np.testing.assert_allclose(together.logits_BC[1], logits[1][1], rtol=1e-5)
    np.testing.assert_allclose(together.logits_BC[2], logits[0][2], rtol=1e-5)


def test_inputs_meet_a_selection_before_any_arithmetic() -> None:
    bundle, _ = made(3, FusionSpec(certainty="reliability", fused_head=True))
    model = fusion_model(bundle, FUSED_WEIGHT, FUSED_BIAS, tiny_parameters(bundle))
    for modality in bundle.modalities:
        for name in (features_input(modality.name), logits_input(modality.name)):
            assert {node.op_type for node in model.graph.node if name in node.input} == {"Where"}


def test_a_fused_head_that_overflows_is_nothing_where_it_does_not_vote() -> None:
    bundle, session = made(2, PAPER)
    present = np.array([[True, False]])
    features, logits = random_inputs(np.random.default_rng(0), 2, present, np.nan)
    features[0][:] = 3e38
    np.testing.assert_allclose(by_graph(bundle, session, features, logits, present).logits_BC, logits[0], rtol=1e-6)


def test_graph_has_the_contracts_tensors_and_a_fixed_opset() -> None:
    bundle, _ = made(2, PAPER)
    model = fusion_model(bundle, FUSED_WEIGHT[:, :8], FUSED_BIAS)
    spec = next(s for s in model_specs(bundle) if s.role == "fusion")
    assert [i.name for i in model.graph.input] == [t.name for t in spec.inputs]
    assert [o.name for o in model.graph.output] == [t.name for t in spec.outputs]
    assert all(i.type.tensor_type.shape.dim[0].dim_param == "batch" for i in model.graph.input)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
    onnx.checker.check_model(model, full_check=True)


def test_a_fused_head_that_does_not_fit_is_refused() -> None:
    bundle, _ = made(2, PAPER)
    with pytest.raises(BundleError, match=r"weight is \(4, 15\).*needs \(4, 8\)"):
        fusion_model(bundle, FUSED_WEIGHT, FUSED_BIAS)
    with pytest.raises(BundleError, match="are needed"):
        fusion_model(bundle, None, None)
    bundle, _ = made(2, FusionSpec(fused_head=False))
    with pytest.raises(BundleError, match="no fused head"):
        fusion_model(bundle, FUSED_WEIGHT, FUSED_BIAS)


def test_a_reliability_that_does_not_fit_is_refused() -> None:
    bundle, _ = made(2, FusionSpec(certainty="reliability", fused_head=False))
    other, _ = made(3, FusionSpec(certainty="reliability", fused_head=False))
    with pytest.raises(BundleError, match="needs what was learned for each of its 2 heads"):
        fusion_model(bundle, None, None)
    with pytest.raises(BundleError, match="needs what was learned for each of its 2 heads"):
        fusion_model(bundle, None, None, tiny_parameters(other))
    learned = tiny_parameters(bundle).reliability
    assert learned is not None
    with pytest.raises(BundleError, match=r"of head 'audio' was learned for .* \(4, 3\), the bundle has \(4, 5\)"):
        fusion_model(bundle, None, None, FusionParameters(learned[::-1]))


@pytest.mark.parametrize(("measure", "pooling"), list(product(MEASURES, POOLINGS)))
def test_only_plain_operators(measure: Certainty, pooling: Pooling) -> None:
    bundle, _ = made(2, FusionSpec(certainty=measure, fused_head=False, pooling=pooling))
    nodes = fusion_model(bundle, None, None, tiny_parameters(bundle)).graph.node
    assert {node.op_type for node in nodes} <= PLAIN_OPERATORS <= SUPPORTED
    assert {node.domain for node in nodes} == {""}


def test_a_reliability_of_another_form_is_refused() -> None:
    crossing, own = (
        FusionSpec(certainty="cross_reliability", fused_head=False),
        FusionSpec(certainty="reliability", fused_head=False),
    )
    for spec, of in ((crossing, own), (own, crossing)):
        bundle, parameters = made(2, spec)[0], tiny_parameters(made(2, of)[0])
        with pytest.raises(BundleError, match=r"learned from (9|20) statistics, certainty '\w+' has (20|9)"):
            fusion_model(bundle, None, None, parameters)
    learned = tiny_parameters(made(2, crossing)[0]).reliability or ()
    bare = FusionParameters(tuple(replace(head, neighbours_ND=None) for head in learned))
    with pytest.raises(BundleError, match="has 20 and stored training features"):
        fusion_model(made(2, crossing)[0], None, None, bare)
