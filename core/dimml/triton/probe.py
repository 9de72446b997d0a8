"""Check that tensors of this numpy survive this Triton server, which the version of numpy alone does not show."""

from __future__ import annotations

from typing import Any

import numpy as np


def refuse_corrupting_numpy(pb_utils: Any) -> None:
    """Raise TritonModelException if tensors do not survive the way through Triton's Python backend.

    The backend of Triton 24.10 and older was compiled against numpy 1: numpy 2's arrays arrive as zeros or as
    nothing, without an error. Newer ones take either numpy.
    """
    sent = np.array([1.0, 2.0], np.float32)
    try:
        capsule = pb_utils.Tensor("PROBE", sent).to_dlpack()
        received = pb_utils.Tensor.from_dlpack("PROBE", capsule).as_numpy()
    except Exception:
        received = None
    if received is None or not np.array_equal(sent, received):
        raise pb_utils.TritonModelException(
            f"this Triton server corrupts tensors of numpy {np.__version__}: its Python must have numpy < 2"
        )
