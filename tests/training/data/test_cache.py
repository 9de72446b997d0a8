"""The clip cache: keyed by content and settings, resumable, and never believed when it is damaged."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from dimml.errors import SetupError
from dimml.media.decoders.version import DECODER_VERSION
from dimml.modality import Flow, Frames, Region, Waveform
from dimml.signal_check import QualityThresholds
from dimml_training.data import cache as cache_module
from dimml_training.data.cache import ClipCache, clip_key

SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=100)
LIPS = Frames(name="lips", frames=2, height=8, width=8)


def opened(root: Path, clip_s: float = 1.0) -> ClipCache:
    return ClipCache(root, (SOUND, LIPS), clip_s, QualityThresholds())


def row(number: int) -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(number)
    return {
        "audio": rng.standard_normal(100).astype(np.float32),
        "lips": rng.integers(0, 256, LIPS.shape, dtype=np.uint8),
    }


def filled(root: Path, count: int) -> ClipCache:
    cache = opened(root)
    with cache.writing():
        for number in range(count):
            cache.add(f"clip{number}", row(number), end_s=float(number))
    return cache


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    entries, damaged = opened(tmp_path).find(["clip2", "clip0", "other"])
    arrays = opened(tmp_path).arrays()
    assert (set(entries), damaged) == ({"clip0", "clip2"}, 0)
    for number in (0, 2):
        entry = entries[f"clip{number}"]
        assert entry.end_s == number
        for name, expected in row(number).items():
            assert isinstance(arrays[name], np.memmap)
            np.testing.assert_array_equal(arrays[name][entry.slot], expected)


def test_a_clip_without_a_modality_takes_no_room_for_it(tmp_path: Path) -> None:
    """Its rows are zeros, its reason is kept, and lines of clips that lack nothing are as they always were."""
    cache = filled(tmp_path, 1)
    with cache.writing():
        cache.add("mute", {"lips": row(1)["lips"]}, None, {"audio": "absent:no_track"})
        cache.add("clip2", row(2), None)
    entries, damaged = opened(tmp_path).find(["clip0", "mute", "clip2"])
    assert (set(entries), damaged) == ({"clip0", "mute", "clip2"}, 0)
    assert {key: entry.absent for key, entry in entries.items() if entry.absent} == {
        "mute": {"audio": "absent:no_track"}
    }
    arrays = opened(tmp_path).arrays()
    assert not arrays["audio"][entries["mute"].slot].any()
    np.testing.assert_array_equal(arrays["lips"][entries["mute"].slot], row(1)["lips"])
    np.testing.assert_array_equal(arrays["audio"][entries["clip2"].slot], row(2)["audio"])
    lines = [json.loads(line) for line in (cache.folder / "index.jsonl").read_text().splitlines() if line]
    assert [set(line) - {"key", "slot", "crc32", "end_s"} for line in lines] == [set(), {"absent"}, set()]
    # A missing row without a reason for its absence is damage.
    assert "audio" not in lines[1]["crc32"]
    del lines[1]["absent"]
    (cache.folder / "index.jsonl").write_text("\n".join(map(json.dumps, lines)))
    entries, damaged = opened(tmp_path).find(["clip0", "mute", "clip2"])
    assert (set(entries), damaged) == ({"clip0", "clip2"}, 1)


def test_other_settings_are_another_folder(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    assert opened(tmp_path, clip_s=2.0).find(["clip0"]) == ({}, 0)
    louder = ClipCache(tmp_path, (SOUND, LIPS), 1.0, QualityThresholds(silence_dbfs=-60.0))
    assert louder.find(["clip0"]) == ({}, 0)


def test_a_field_that_comes_later_decodes_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it says that things are as they were: of the settings, and of a region within them."""

    class LaterSound(Waveform):
        HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {**Waveform.HISTORIC_DEFAULTS, "gain": 1.0}
        gain: float = 1.0

    monkeypatch.setattr(cache_module, "version", lambda _: "0")
    libraries = ("av", "opencv-python-headless", "soundfile", "soxr")
    monkeypatch.setattr(cache_module, "_decoder", lambda: {"version": 1, **dict.fromkeys(libraries, "0")})
    before = SOUND.model_copy(update=dict(Waveform.HISTORIC_DEFAULTS))
    region = Region(left=0.25, top=0.25, right=0.75, bottom=0.75)
    lips = LIPS.model_copy(update={"region": region, **Frames.HISTORIC_DEFAULTS})
    motion = Flow(name="motion", frames=2, height=8, width=8, **Flow.HISTORIC_DEFAULTS)

    def folder(sound: Waveform) -> str:
        return ClipCache(tmp_path, (sound, lips, motion), 1.0, QualityThresholds(frozen_change=0.0)).folder.name

    assert folder(before) == "dac316182a003e37", "everybody would decode every clip again"
    assert folder(LaterSound(**before.model_dump())) == folder(before)
    assert folder(LaterSound(**before.model_dump(), gain=2.0)) != folder(before)


@pytest.mark.parametrize(("name", "value"), [("DECODER_VERSION", DECODER_VERSION + 1), ("version", lambda _: "0")])
def test_rows_of_another_decoder_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    filled(tmp_path, 1)
    monkeypatch.setattr(cache_module, name, value)
    assert opened(tmp_path).find(["clip0"]) == ({}, 0)


def test_the_key_is_content_and_range() -> None:
    key = clip_key({"audio": "0a"}, 1.0, 2.0)
    assert key == clip_key({"audio": "0a"}, 1.0, 2.0)
    others = [clip_key({"audio": "0b"}, 1.0, 2.0), clip_key({"audio": "0a"}, 1.0, None), clip_key({}, 1.0, 2.0)]
    assert len({key, *others, clip_key({"audio": "0a"}, 1.0, 2.0, margin_s=0.5)}) == 5


@pytest.mark.parametrize("keep", ["nothing", "half a row", "rows without index", "half an index line"])
def test_what_a_killed_process_left_is_passed_over(tmp_path: Path, keep: str) -> None:
    cache = filled(tmp_path, 2)
    index = cache.folder / "index.jsonl"
    lines = index.read_bytes()
    with cache.writing():
        cache.add("torn", row(7), None)
    if keep == "nothing":
        index.write_bytes(lines)
        for name, size in (("audio", 2 * 400), ("lips", 2 * 384)):
            with (cache.folder / f"{name}.rows").open("rb+") as file:
                file.truncate(size)
    elif keep == "half a row":
        index.write_bytes(lines)
        with (cache.folder / "lips.rows").open("rb+") as file:
            file.truncate(2 * 384 + 100)
    elif keep == "rows without index":
        index.write_bytes(lines)
    else:
        index.write_bytes(index.read_bytes()[:-20])
    again = opened(tmp_path)
    assert set(again.find(["clip0", "clip1", "torn"])[0]) == {"clip0", "clip1"}
    with again.writing():
        again.add("torn", row(7), None)
        again.add("next", row(8), None)
    entries, damaged = opened(tmp_path).find(["clip0", "clip1", "torn", "next"])
    assert (len(entries), damaged) == (4, 0)
    for key, number in (("clip1", 1), ("torn", 7), ("next", 8)):
        np.testing.assert_array_equal(opened(tmp_path).arrays()["lips"][entries[key].slot], row(number)["lips"])


def test_a_damaged_row_is_not_believed_and_can_be_replaced(tmp_path: Path) -> None:
    cache = filled(tmp_path, 3)
    with (cache.folder / "audio.rows").open("rb+") as file:
        file.seek(400 + 17)
        file.write(b"\xff\xff")
    entries, damaged = opened(tmp_path).find(["clip0", "clip1", "clip2"])
    assert (set(entries), damaged) == ({"clip0", "clip2"}, 1)
    with cache.writing():
        cache.add("clip1", row(1), None)
    entries, damaged = opened(tmp_path).find(["clip0", "clip1", "clip2"])
    assert (len(entries), damaged) == (3, 0)
    np.testing.assert_array_equal(opened(tmp_path).arrays()["audio"][entries["clip1"].slot], row(1)["audio"])


def test_a_file_cut_short_loses_only_its_end(tmp_path: Path) -> None:
    cache = filled(tmp_path, 3)
    with (cache.folder / "audio.rows").open("rb+") as file:
        file.truncate(2 * 400 + 4)
    entries, damaged = opened(tmp_path).find(["clip0", "clip1", "clip2"])
    assert (set(entries), damaged) == ({"clip0", "clip1"}, 1)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SetupError, match=r"cannot write the clip cache .* choose another place with --cache-dir"):
        opened(tmp_path / "file")


def test_the_folder_says_what_its_rows_are(tmp_path: Path) -> None:
    settings = json.loads((filled(tmp_path, 1).folder / "settings.json").read_text())
    assert settings["clip_s"] == 1.0
    assert [m["name"] for m in settings["modalities"]] == ["audio", "lips"]


def test_what_another_process_adds_meanwhile_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Whoever looks while another one writes sees a clip whole or not at all."""
    cache = filled(tmp_path, 1)
    keys = [f"more{number}" for number in range(300)]

    def add() -> None:
        with cache.writing():
            for number, key in enumerate(keys):
                cache.add(key, row(number), None)

    writer = threading.Thread(target=add)
    writer.start()
    reader = opened(tmp_path)
    looks = []
    while writer.is_alive():
        looks.append(reader.find(keys)[1])
    writer.join()
    assert sum(looks) == 0
    assert len(reader.find(keys)[0]) == 300
