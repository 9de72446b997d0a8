"""Real clips stored beside an encoder, on which the host that builds its plan compares the two."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import BundleError

SAMPLES_NAME: Final = "samples.npy"
#: As many as an export compares at once; a video clip is a megabyte or more.
MAX_SAMPLES: Final = 8

#: Clips ``[N, *shape]`` by modality, in the modality's dtype.
Samples = Mapping[str, npt.NDArray[Any]]


def samples_bytes(clips: npt.NDArray[Any]) -> bytes:
    """Encode the first ``MAX_SAMPLES`` clips as an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(clips[:MAX_SAMPLES]), allow_pickle=False)
    return buffer.getvalue()


def read_samples(path: Path) -> npt.NDArray[Any]:
    """Read clips ``[N, *shape]``. Raises BundleError if the file cannot be read."""
    try:
        clips: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}", field=SAMPLES_NAME) from error
    return clips
