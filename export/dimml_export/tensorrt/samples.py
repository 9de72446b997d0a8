"""Real clips beside an encoder that is to become a plan: the host that builds it compares on them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import BundleError

SAMPLES_NAME: Final = "samples.npy"
#: As many as an export compares at once; a clip of video is a megabyte and more.
MAX_SAMPLES: Final = 8

#: Clips ``[N, *shape]`` by modality, in the modality's dtype.
Samples = Mapping[str, npt.NDArray[Any]]


def samples_bytes(clips: npt.NDArray[Any]) -> bytes:
    """The first ``MAX_SAMPLES`` clips as an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(clips[:MAX_SAMPLES]), allow_pickle=False)
    return buffer.getvalue()


def read_samples(path: Path) -> npt.NDArray[Any]:
    """Clips ``[N, *shape]``. Raises BundleError where the file cannot be read."""
    try:
        clips: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}", field=SAMPLES_NAME) from error
    return clips
