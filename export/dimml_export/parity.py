"""Parity check: whether the exported models compute what was trained.

ONNX Runtime is compared with torch, for each encoder and for the served chain, and the fusion graph with
``dimml.fusion`` under lost modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from dimml.bundle import Bundle
from dimml.contract import (
    CERTAINTY,
    FEATURES,
    LOGITS,
    PRESENT,
    PROBABILITIES,
    WEIGHTS,
    features_input,
    logits_input,
)
from dimml.errors import BundleError
from dimml.fusion import BoolArray, FloatArray, Fused, FusionParameters, fuse, heads_present
from dimml.system.cpu import exact_int8_sums
from dimml.system.outbound import import_quietly

BATCH_SIZES: Final = (1, 3, 8)
#: Largest absolute difference of a logit.
LOGITS_TOLERANCE: Final = 1e-3
#: Error of a logit due to FP32 itself, relative to the largest one: eight units in the last place. It exceeds the
#: absolute tolerance only for logits above a thousand, which FP32 cannot represent more finely after a sum of products.
LOGITS_ROUNDING: Final = 8 * float(np.finfo(np.float32).eps)
#: Largest absolute difference of the fusion's other outputs, all of which are in [0, 1].
SHARES_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Agreement:
    """Bounds of encoders in reduced precision, which cannot equal the trained ones."""

    #: Least share of sample clips with the trained model's label.
    labels: float
    #: Largest root mean square difference of logits, as a share of that of the trained logits from their clip's mean.
    logits: float


#: By precision. They catch encoders that are broken on this processor; what reduced precision costs is judged on
#: validation clips (``dimml_export.precision``).
AGREEMENT: Final = {"fp16": Agreement(labels=0.9, logits=0.05), "int8": Agreement(labels=0.75, logits=0.4)}

TORCH: Final = "torch"
NUMPY: Final = "numpy"


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of one comparison over all sample clips."""

    #: The exported model; the bundle's own name stands for the chain of its encoders and its fusion.
    model: str
    #: What it was compared with: ``torch``, or ``numpy`` for ``dimml.fusion`` on torch's outputs.
    against: str
    batch: int
    clips: int
    labels_differ: int
    #: Largest absolute difference of each compared output.
    differences: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outputs:
    """One encoder's outputs on the sample clips."""

    features_ND: FloatArray
    logits_NC: FloatArray


def check_encoder(
    name: str,
    encoder: nn.Module,
    model: onnx.ModelProto,
    clips: npt.NDArray[Any],
    *,
    agreement: Agreement | None = None,
) -> tuple[Outputs, list[Parity]]:
    """Run real clips ``[N, *shape]`` through both at every batch size; return torch's outputs and the comparison.

    Every clip is part of every comparison; the last batch is filled up from the first clips. Raises BundleError naming
    the model, the batch size and the difference if a label differs, a logit by more than ``LOGITS_TOLERANCE``, or a
    feature by more than that share of the largest one; for a model in reduced precision, beyond its ``agreement``.
    """
    if len(clips) == 0:
        raise BundleError(f"{name}: there are no sample clips to compare torch and ONNX Runtime on")
    session = cpu_session(model)
    with torch.no_grad():
        features, logits = (output.numpy() for output in encoder.eval()(torch.from_numpy(clips)))
    input_name = model.graph.input[0].name
    # The fused head uses the features: they have the same tolerance, relative to their size.
    tolerances = {LOGITS: LOGITS_TOLERANCE, FEATURES: LOGITS_TOLERANCE * max(1.0, float(np.abs(features).max()))}
    results = []
    for batch in BATCH_SIZES:
        order = _batches(len(clips), batch)
        parts = [session.run([FEATURES, LOGITS], {input_name: clips[rows]}) for rows in order]
        onnx_features, onnx_logits = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        rows = order.ravel()
        parity = Parity(
            model=name,
            against=TORCH,
            batch=batch,
            clips=len(clips),
            labels_differ=_labels_differ(onnx_logits, logits[rows]),
            differences={
                LOGITS: _difference(onnx_logits, logits[rows]),
                FEATURES: _difference(onnx_features, features[rows]),
            },
        )
        _require(parity, tolerances, agreement, _relative(onnx_logits, logits[rows]))
        results.append(parity)
    return Outputs(features, logits), results


def check_fusion(
    bundle: Bundle,
    model: onnx.ModelProto,
    outputs: Mapping[str, Outputs],
    fused_weight: FloatArray | None,
    fused_bias: FloatArray | None,
    *,
    parameters: FusionParameters | None = None,
) -> Parity:
    """Compare the fusion graph with ``dimml.fusion`` on the encoders' outputs, for every pattern of lost modalities.

    Lost slots hold NaN. Raises BundleError naming the output and the difference if a label differs, a logit by more
    than its tolerance, or a probability, certainty or weight by more than ``SHARES_TOLERANCE``.
    """
    names = [modality.name for modality in bundle.modalities]
    clips = len(outputs[names[0]].logits_NC)
    patterns = np.array(list(product([True, False], repeat=len(names))))
    present_BM = np.repeat(patterns, clips, axis=0)
    feeds: dict[str, npt.NDArray[Any]] = {PRESENT: present_BM}
    features, logits = [], []
    for index, name in enumerate(names):
        lost = ~present_BM[:, [index]]
        features.append(np.tile(outputs[name].features_ND, (len(patterns), 1)))
        logits.append(np.tile(outputs[name].logits_NC, (len(patterns), 1)))
        feeds[features_input(name)] = np.where(lost, np.float32(np.nan), features[-1])
        feeds[logits_input(name)] = np.where(lost, np.float32(np.nan), logits[-1])
    if fused_weight is not None and fused_bias is not None:
        features.append(np.concatenate(features, axis=1))
        logits.append((features[-1] @ fused_weight.T + fused_bias).astype(np.float32))
    expected = _fused(bundle, features, logits, present_BM, parameters)
    wanted = {
        PROBABILITIES: expected.probabilities_BC,
        LOGITS: expected.logits_BC,
        CERTAINTY: expected.certainty_BH,
        WEIGHTS: expected.weights_BH,
    }
    given = dict(zip(wanted, cpu_session(model).run(list(wanted), feeds), strict=True))
    answered = present_BM.any(axis=1)
    parity = Parity(
        model=bundle.fusion_model,
        against=NUMPY,
        batch=len(present_BM),
        clips=clips,
        labels_differ=_labels_differ(given[LOGITS][answered], expected.logits_BC[answered]),
        differences={key: _difference(given[key], wanted[key]) for key in wanted},
    )
    _require(parity, dict.fromkeys(wanted, SHARES_TOLERANCE) | {LOGITS: _logits_tolerance(expected.logits_BC)})
    return parity


def check_chain(
    bundle: Bundle,
    encoders: Mapping[str, onnx.ModelProto],
    fusion: onnx.ModelProto,
    *,
    clips: Mapping[str, npt.NDArray[Any]],
    outputs: Mapping[str, Outputs],
    fused_head: nn.Linear | None,
    parameters: FusionParameters | None = None,
    agreement: Agreement | None = None,
) -> list[Parity]:
    """Compare the served chain, exported encoders followed by the exported fusion, end to end with the trained model.

    ``clips`` are the samples ``[N, *shape]`` by modality, ``outputs`` those of torch's encoders on them. The trained
    answer is ``fused_head`` on torch's features, followed by ``dimml.fusion.fuse``. Raises BundleError naming batch
    size and difference if, at any of ``BATCH_SIZES``, a label differs, or a fused logit by more than its tolerance; for
    encoders in reduced precision, beyond their ``agreement``.
    """
    names = [modality.name for modality in bundle.modalities]
    features = [outputs[name].features_ND for name in names]
    logits = [outputs[name].logits_NC for name in names]
    if fused_head is not None:
        features.append(np.concatenate(features, axis=1))
        with torch.no_grad():
            logits.append(fused_head(torch.from_numpy(features[-1])).numpy())
    count = len(logits[0])
    everything = np.ones((count, len(names)), np.bool_)
    trained = _fused(bundle, features, logits, everything, parameters).logits_BC
    sessions = {name: cpu_session(encoders[name]) for name in names}
    fusing = cpu_session(fusion)
    results = []
    for batch in BATCH_SIZES:
        order = _batches(count, batch)
        parts = []
        for rows in order:
            feeds: dict[str, npt.NDArray[Any]] = {PRESENT: np.ones((batch, len(names)), np.bool_)}
            for name, session in sessions.items():
                feeds[features_input(name)], feeds[logits_input(name)] = session.run(
                    [FEATURES, LOGITS], {session.get_inputs()[0].name: clips[name][rows]}
                )
            parts.append(fusing.run([LOGITS], feeds)[0])
        served, wanted = np.concatenate(parts), trained[order.ravel()]
        parity = Parity(
            model=bundle.name,
            against=TORCH,
            batch=batch,
            clips=count,
            labels_differ=_labels_differ(served, wanted),
            differences={LOGITS: _difference(served, wanted)},
        )
        _require(parity, {LOGITS: _logits_tolerance(trained)}, agreement, _relative(served, wanted))
        results.append(parity)
    return results


def _fused(
    bundle: Bundle,
    features: list[FloatArray],
    logits: list[FloatArray],
    present_BM: BoolArray,
    parameters: FusionParameters | None,
) -> Fused:
    """Apply ``dimml.fusion`` to features and logits of all heads, including the fused one."""
    present_BH = heads_present(present_BM, bundle.fusion.fused_head)
    return fuse(np.stack(logits, axis=1), present_BH, bundle.fusion, parameters, features)


def _batches(clips: int, batch: int) -> npt.NDArray[np.intp]:
    """Return indices of all clips, ``[batches, batch]``; the last batch is filled up from the first clips."""
    return np.resize(np.arange(clips), (-(-clips // batch), batch))


def _labels_differ(ours_BC: FloatArray, theirs_BC: FloatArray) -> int:
    return int((ours_BC.argmax(axis=1) != theirs_BC.argmax(axis=1)).sum())


def _difference(ours: FloatArray, theirs: FloatArray) -> float:
    return float(np.abs(ours - theirs).max())


def _logits_tolerance(logits_BC: FloatArray) -> float:
    return max(LOGITS_TOLERANCE, LOGITS_ROUNDING * float(np.abs(logits_BC).max()))


def _relative(ours_BC: FloatArray, theirs_BC: FloatArray) -> float:
    """Root mean square difference as a share of how far the logits lie from their clip's mean."""
    spread = np.square(theirs_BC - theirs_BC.mean(axis=1, keepdims=True)).mean()
    return float(np.sqrt(np.square(ours_BC - theirs_BC).mean() / max(float(spread), float(np.finfo(np.float32).tiny))))


def _require(
    parity: Parity,
    tolerances: Mapping[str, float],
    agreement: Agreement | None = None,
    relative: float = 0.0,
) -> None:
    if agreement is not None:
        _require_agreement(parity, agreement, relative)
        return
    # The comparison is written so that a NaN on either side fails too.
    beyond = [output for output, tolerance in tolerances.items() if not parity.differences[output] <= tolerance]
    if parity.labels_differ == 0 and not beyond:
        return
    output = (beyond or [LOGITS])[0]
    raise BundleError(
        f"{parity.model}: at batch {parity.batch} {output} differs by up to {parity.differences[output]:.2g} "
        f"(at most {tolerances[output]:g}) and {parity.labels_differ} labels differ between the trained and the "
        "exported model; nothing was exported"
    )


def _require_agreement(parity: Parity, bounds: Agreement, relative: float) -> None:
    # Compared are as many rows as fill whole batches.
    rows = -(-parity.clips // parity.batch) * parity.batch
    if parity.labels_differ <= (1 - bounds.labels) * rows and relative <= bounds.logits:
        return
    raise BundleError(
        f"{parity.model}: at batch {parity.batch} logits in reduced precision differ by {relative:.0%} of the trained "
        f"ones' spread (at most {bounds.logits:.0%}) and {parity.labels_differ} of {rows} labels differ (at most "
        f"{1 - bounds.labels:.0%}); export it without --precision; nothing was exported"
    )


def cpu_session(model: onnx.ModelProto) -> Any:
    """An ``onnxruntime.InferenceSession`` on the processor, of any precision."""
    ort = import_quietly("onnxruntime")
    options = ort.SessionOptions()
    for entry in exact_int8_sums().items():
        options.add_session_config_entry(*entry)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
