"""Triton's classification extension: an output's top classes as text, ``value:index:label``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimml.contract import LOGITS, PROBABILITIES
from dimml.errors import InvalidTensorError
from dimml_server.kserve.tensors import OutputTensor


def top_classes(output: OutputTensor, class_count: int, labels: Sequence[str], *, batched: bool) -> OutputTensor:
    """Return the ``class_count`` largest elements of each row as BYTES, ``[B, k]``, or ``[k]`` without batching.

    Written as Triton's ``classification.cc`` does: six decimals, the largest first; labels for the outputs over
    classes. Raises InvalidTensorError for an output that is not numeric.
    """
    if output.datatype in ("BYTES", "BOOL"):
        raise InvalidTensorError(
            f"class result not available for output '{output.name}' due to unsupported type '{output.datatype}'",
            field=output.name,
        )
    rows = output.array.reshape(len(output.array) if batched else 1, -1)
    named = output.name in (PROBABILITIES, LOGITS)
    count = min(class_count, rows.shape[1])
    texts = np.empty((len(rows), count), np.object_)
    for row, values in enumerate(rows):
        for place, index in enumerate(np.argsort(-values, kind="stable")[:count].tolist()):
            label = f":{labels[index]}" if named else ""
            texts[row, place] = f"{float(values[index]):.6f}:{index}{label}".encode()
    return OutputTensor(output.name, "BYTES", texts if batched else texts[0])
