"""Parity of a plan with its ONNX model: compared with ONNX Runtime on the CPU, on real clips and several batches."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.contract import FEATURES, LOGITS
from dimml.errors import BundleError
from dimml.system.outbound import import_quietly
from dimml_export.tensorrt.builder import Run
from dimml_export.tensorrt.graph import Precision

#: Largest difference of an output, relative to the largest value of that output on the clips. FP32 as for an export;
#: FP16 has ten bits, and may lose more than one of them over some twenty layers.
TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 2e-2}
_BATCHES: Final = (1, 3, 8)

FloatArray = npt.NDArray[np.float32]


def check_plan(
    model_name: str, model: bytes, run: Run, clips: npt.NDArray[Any], *, precision: Precision, max_batch_size: int
) -> dict[str, float]:
    """Compare a plan with its ONNX model.

    Returns the largest absolute difference of FEATURES and LOGITS over all clips and batch sizes, ``max_batch_size``
    included, and under ``labels_differ`` the number of clips whose label differs at any of them.

    ``model`` is the ONNX model as exported, ``clips`` ``[N, *shape]``. Raises BundleError, naming the output, the batch
    size and both figures, if one differs by more than its tolerance (``TOLERANCES`` of the largest value, or of 1 if
    all are smaller), and for FP32 if any label differs. In FP16 a label can differ only where the two best logits are
    within twice the tolerance of each other.
    """
    if len(clips) == 0:
        raise BundleError(f"{model_name}: there are no clips to compare the plan on")
    session = import_quietly("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0].name
    outputs = session.run([FEATURES, LOGITS], {tensor: clips})
    wanted: dict[str, FloatArray] = dict(zip((FEATURES, LOGITS), outputs, strict=True))
    differences = dict.fromkeys(wanted, 0.0)
    other_label = np.zeros(len(clips), np.bool_)
    for batch in sorted({min(size, max_batch_size) for size in (*_BATCHES, max_batch_size)}):
        order = np.resize(np.arange(len(clips)), (-(-len(clips) // batch), batch))
        parts = [run(clips[rows]) for rows in order]
        found = dict(zip(wanted, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        rows = order.ravel()
        for name, values in found.items():
            difference = float(np.abs(values - wanted[name][rows]).max())
            tolerance = TOLERANCES[precision] * max(1.0, float(np.abs(wanted[name]).max()))
            # The comparison is written so that a NaN fails too.
            if not difference <= tolerance:
                raise BundleError(
                    f"{model_name}: at batch {batch} the plan's {name} differ from ONNX Runtime's by up to "
                    f"{difference:.2g} (at most {tolerance:.2g} in {precision}); no plan was written"
                )
            differences[name] = max(differences[name], difference)
        other_label[rows[found[LOGITS].argmax(axis=1) != wanted[LOGITS][rows].argmax(axis=1)]] = True
    if precision == "fp32" and other_label.any():
        raise BundleError(
            f"{model_name}: the plan gives another label than ONNX Runtime for {int(other_label.sum())} of "
            f"{len(clips)} clips; no plan was written"
        )
    return {**differences, "labels_differ": float(other_label.sum())}
