"""Flow from a file: cut, resized and scaled with its pictures; a bad file is unusable, never a crash."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dimml.errors import TooLargeError
from dimml.media import MediaLimits
from dimml.modality import Flow, Region
from support.decoding import AUDIO, VISUAL, decode_source, row_of, statuses

FLOW = Flow(name="flow", frames=2, height=16, width=24, bound_px=5.0)


def npy(displacement: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, displacement)
    return file.getvalue()


def uniform(frames: int, right: float, down: float, dtype: str = "<f4") -> npt.NDArray[np.generic]:
    return np.broadcast_to(np.array([right, down], dtype), (frames, 32, 48, 2)).copy()


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_displacements_shrink_with_the_picture(dtype: str) -> None:
    row = row_of(decode_source(npy(uniform(3, 4.0, -3.0, dtype)), FLOW), "flow")
    # Half the width, half the height: 2 px to the right and 1.5 up, of 5 px in 127 steps.
    assert row.shape == FLOW.shape
    assert set(row[..., 0].ravel().tolist()) == {128 + round(2.0 * 127 / 5)}
    assert set(row[..., 1].ravel().tolist()) == {128 - round(1.5 * 127 / 5)}


def test_the_region_is_cut_before_resizing() -> None:
    displacement = np.zeros((1, 32, 48, 2), np.float32)
    displacement[:, :16, 24:, 0] = 1.0
    quarter = Flow(
        name="flow", frames=1, height=16, width=24, bound_px=5.0, region=Region(left=0.5, top=0, right=1, bottom=0.5)
    )
    row = row_of(decode_source(npy(displacement), quarter), "flow")
    assert (row[..., 0] == 128 + round(127 / 5)).all()
    assert (row[..., 1] == 128).all()


def test_frames_are_those_at_the_centres_of_equal_parts(tmp_path: Path) -> None:
    displacement = np.zeros((8, 16, 24, 2), np.float32)
    displacement[..., 0] = np.arange(8).reshape(8, 1, 1) * 0.5
    path = tmp_path / "clip.npy"
    np.save(path, displacement)
    row = row_of(decode_source(path, FLOW), "flow")
    assert row[:, 0, 0, 0].tolist() == [128 + round(index * 0.5 * 127 / 5) for index in (2, 6)]
    longer = row_of(decode_source(path, FLOW.model_copy(update={"frames": 16})), "flow")
    assert (longer[::2] == longer[1::2]).all()


def test_a_flow_has_neither_sound_nor_frames() -> None:
    decoded = decode_source(npy(uniform(2, 0.0, 0.0)), AUDIO, VISUAL, FLOW)
    assert statuses(decoded) == {"audio": "absent:no_track", "visual": "absent:no_track", "flow": "ok"}


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros((2, 32, 48), np.float32)),
        npy(np.zeros((2, 32, 48, 3), np.float32)),
        npy(np.zeros((2, 32, 48, 2), np.float64)),
        npy(np.zeros((2, 32, 48, 2), np.uint8)),
        npy(np.zeros((0, 32, 48, 2), np.float32)),
        npy(np.asfortranarray(np.zeros((2, 32, 48, 2), np.float32))),
        npy(np.full((2, 32, 48, 2), np.nan, np.float32)),
        npy(np.zeros((2, 32, 48, 2), np.float32))[:-400],
        npy(np.zeros((2, 32, 48, 2), np.float32))[:9],
        b"\x93NUMPY\x03\x00" + b"(" * 4000,
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000,
        npy(np.zeros((2, 32, 48, 2), np.float32)).replace(b"(2, ", b"(9**9, ", 1),
    ],
)
def test_a_bad_file_is_undecodable(data: bytes) -> None:
    assert statuses(decode_source(data, FLOW)) == {"flow": "unusable:undecodable"}


def test_too_many_pixels_are_refused_by_the_header() -> None:
    data = npy(uniform(1, 0.0, 0.0)).replace(b"32, 48", b"99999, 99999")
    with pytest.raises(TooLargeError, match="max_pixels"):
        decode_source(data, FLOW, limits=MediaLimits(max_pixels=10_000))
