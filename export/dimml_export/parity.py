"""Is what was exported what was trained? ONNX Runtime against torch, and the fusion graph against ``dimml.fusion``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
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
from dimml.fusion import FloatArray, fuse, heads_present

BATCH_SIZES: Final = (1, 3, 8)
#: Largest difference of a logit between torch and ONNX Runtime.
LOGITS_TOLERANCE: Final = 1e-3
#: Largest difference of any output between the fusion graph and its statement in numpy.
FUSION_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Parity:
    """What one model's comparison over all sample clips gave."""

    model: str
    batch: int
    clips: int
    labels_differ: int
    #: Largest absolute difference of any logit (for the fusion: of any output).
    largest_difference: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outputs:
    """One encoder's outputs on the sample clips."""

    features_ND: FloatArray
    logits_NC: FloatArray


def check_encoder(
    name: str, encoder: nn.Module, model: onnx.ModelProto, clips: npt.NDArray[Any]
) -> tuple[Outputs, list[Parity]]:
    """Run real clips ``[N, *shape]`` through both at every batch size; torch's outputs, and what the comparison gave.

    Every clip is part of every comparison; the last batch is filled up from the first clips. Raises BundleError
    that names the model, the batch size and the difference where a label differs or a logit by more than
    ``LOGITS_TOLERANCE``.
    """
    if len(clips) == 0:
        raise BundleError(f"{name}: there are no sample clips to compare torch and ONNX Runtime on")
    session = _session(model)
    with torch.no_grad():
        features, logits = (output.numpy() for output in encoder.eval()(torch.from_numpy(clips)))
    input_name = model.graph.input[0].name
    results = []
    for batch in BATCH_SIZES:
        order = np.resize(np.arange(len(clips)), -(-len(clips) // batch) * batch)
        parts = [session.run([FEATURES, LOGITS], {input_name: clips[rows]}) for rows in order.reshape(-1, batch)]
        onnx_features, onnx_logits = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        parity = Parity(
            model=name,
            batch=batch,
            clips=len(clips),
            labels_differ=int((onnx_logits.argmax(axis=1) != logits[order].argmax(axis=1)).sum()),
            largest_difference=float(np.abs(onnx_logits - logits[order]).max()),
        )
        _require(parity, LOGITS_TOLERANCE, "logits")
        # The fused head reads the features: they are held to the same tolerance, relative to their size.
        scale = max(1.0, float(np.abs(features).max()))
        difference = float(np.abs(onnx_features - features[order]).max())
        if not difference <= LOGITS_TOLERANCE * scale:
            raise BundleError(
                f"{name}: at batch {batch} features differ by up to {difference:.2g} between torch and ONNX Runtime; "
                "nothing was exported"
            )
        results.append(parity)
    return Outputs(features, logits), results


def check_fusion(
    bundle: Bundle,
    model: onnx.ModelProto,
    outputs: Mapping[str, Outputs],
    fused_weight: FloatArray | None,
    fused_bias: FloatArray | None,
) -> Parity:
    """Hold the fusion graph to ``dimml.fusion`` on the encoders' outputs, under every pattern of lost modalities.

    Lost slots hold NaN. Raises BundleError naming the output and the difference.
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
    heads = list(logits)
    if fused_weight is not None and fused_bias is not None:
        heads.append(np.concatenate(features, axis=1) @ fused_weight.T + fused_bias)
    expected = fuse(
        np.stack(heads, axis=1).astype(np.float32),
        heads_present(present_BM, bundle.fusion.fused_head),
        measure=bundle.fusion.certainty,
        temperature=bundle.fusion.temperature,
    )
    wanted = {
        PROBABILITIES: expected.probabilities_BC,
        LOGITS: expected.logits_BC,
        CERTAINTY: expected.certainty_BH,
        WEIGHTS: expected.weights_BH,
    }
    given = dict(zip(wanted, _session(model).run(list(wanted), feeds), strict=True))
    answered = present_BM.any(axis=1)
    labels = [logits[answered].argmax(axis=1) for logits in (given[LOGITS], expected.logits_BC)]
    parity = Parity(
        model=bundle.fusion_model,
        batch=len(present_BM),
        clips=clips,
        labels_differ=int((labels[0] != labels[1]).sum()),
        largest_difference=max(float(np.abs(given[key] - wanted[key]).max()) for key in wanted),
    )
    # Logits may be in the hundreds, where FP32 itself is no finer than this.
    _require(parity, FUSION_TOLERANCE * max(1.0, float(np.abs(expected.logits_BC).max())), "outputs")
    return parity


def _require(parity: Parity, tolerance: float, what: str) -> None:
    # Written so that a NaN on either side fails too.
    if parity.labels_differ == 0 and parity.largest_difference <= tolerance:
        return
    raise BundleError(
        f"{parity.model}: at batch {parity.batch} {what} differ by up to {parity.largest_difference:.2g} "
        f"(at most {tolerance:g}) and {parity.labels_differ} labels differ between the trained and the exported model; "
        "nothing was exported"
    )


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
