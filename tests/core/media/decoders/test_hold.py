"""How long a picture stays: slides and pauses do, the picture of a camera that is gone does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Flow, Frames
from support.data import shared_data
from support.decoding import AUDIO, VISUAL, decode_source, request_for, statuses
from support.media_maker import write_clip

MOTION = Flow(name="motion", frames=2, height=32, width=48)
FOREVER = Frames(name="visual", frames=5, height=32, width=48, hold_s=None)


@pytest.mark.parametrize(("name", "start_s", "end_s"), [("camera_gone.mp4", 2.4, 3.6), ("vp8_vend.webm", 2.2, 3.1)])
def test_a_camera_that_was_stopped_is_absent(name: str, start_s: float, end_s: float) -> None:
    path = shared_data("mediarecorder") / name
    wanted = {"audio": "ok", "visual": "absent:track_ended"}
    assert statuses(decode_source(path, start_s=start_s, end_s=end_s)) == wanted
    assert statuses(decode_source(path, end_s=1.2)) == {"audio": "ok", "visual": "ok"}


def test_a_picture_track_that_ended(tmp_path: Path) -> None:
    """It ends at 2 s: the picture stays until 3 s, by the middle of the window."""
    path = write_clip(tmp_path / "clip.mp4", 2.0, fps=10, sound_seconds=8.0)
    for modality in (VISUAL, MOTION):
        found = [
            statuses(one.decoded)[modality.name]
            for one in decode_windows(request_for(path, AUDIO, modality), WindowPlan(1.0, 0.5))
        ]
        assert found[:5] == ["ok"] * 5
        assert found[6:] == ["absent:track_ended"] * (len(found) - 6)
        assert statuses(decode_source(path, modality, start_s=6.0, end_s=7.0)) == {modality.name: "absent:track_ended"}
    assert statuses(decode_source(path, FOREVER, start_s=6.0, end_s=7.0)) == {"visual": "ok"}
    longer = FOREVER.model_copy(update={"hold_s": 4.6})
    assert statuses(decode_source(path, longer, start_s=6.0, end_s=7.0)) == {"visual": "ok"}


def test_a_picture_track_that_begins_late(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2.0, fps=10, sound_seconds=8.0, picture_delay_s=5.0)
    wanted = {"audio": "ok", "visual": "absent:track_not_started"}
    assert statuses(decode_source(path, end_s=1.0)) == wanted
    assert statuses(decode_source(path, start_s=3.0, end_s=4.0)) == wanted
    assert statuses(decode_source(path, start_s=3.8, end_s=4.8)) == {"audio": "ok", "visual": "ok"}
    assert statuses(decode_source(path, FOREVER, end_s=1.0)) == {"visual": "ok"}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_slides_stay(tmp_path: Path, suffix: str) -> None:
    """The last one as long as the longest before it, and the hold; between two, without limit."""
    path = write_clip(
        tmp_path / f"clip.{suffix}", 1.0, picture_times_s=[0.0, 0.2, 6.0, 6.4], sound_seconds=20.0, rate_hz=8000
    )
    for start_s, status in ((4.5, "ok"), (11.0, "ok"), (14.0, "absent:track_ended")):
        assert statuses(decode_source(path, start_s=start_s, end_s=start_s + 1.0))["visual"] == status, start_s


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_still_beside_the_sound_stays(tmp_path: Path, pictures: int) -> None:
    path = write_clip(tmp_path / "clip.mkv", pictures / 25, sound_seconds=20.0, rate_hz=8000)
    assert statuses(decode_source(path, start_s=18.0, end_s=19.0)) == {"audio": "ok", "visual": "ok"}
