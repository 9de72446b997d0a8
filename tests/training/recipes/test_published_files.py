"""Recipes on recordings in the containers and codecs that data sets publish: from the folder to the rows of a clip.

Every file is made here, a numbered picture 25 times a second and a burst of tone where the word is; pictures and burst
are found by arithmetic where the table of clips says.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from dimml.errors import DataError
from dimml.modality import Frames, Waveform
from dimml_training.cli.make_manifest import make_manifest_app
from dimml_training.recipes.grid_published import list_published_grid
from support.decoding import decode_source, loudest_s, row_of, statuses
from support.media_maker import click_at, read_number, write_clip

FPS: Final = 25
SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=8000)
PICTURE = Frames(name="visual", frames=4, height=32, width=64)
#: The alignment of this sentence as the corpus has it: silence up to 0.95 s, and "two" from 1.64 to 1.89 s.
BBAF2N: Final = """0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 47250 two
47250 53000 now
53000 74500 sil
"""
#: MPEG-1 pictures and MPEG layer 2 sound at 44.1 kHz in a program stream, as GRID's .mpg.
GRID_MPG: Final = {"video_codec": "mpeg1video", "audio_codec": "mp2", "rate_hz": 44_100}
#: Sorenson H.263 and MP3, as CREMA-D's .flv.
CREMA_FLV: Final = {"video_codec": "flv", "audio_codec": "libmp3lame", "rate_hz": 44_100}
#: MPEG-4 part 2 with the tag of XviD and MP3, as UCF-101's .avi.
UCF_AVI: Final = {"video_codec": "mpeg4", "audio_codec": "libmp3lame", "rate_hz": 44_100, "video_tag": "XVID"}
#: H.264 and AAC, as AVE's .mp4.
AVE_MP4: Final = {"video_codec": "libx264", "audio_codec": "aac", "rate_hz": 44_100}


def table(tmp_path: Path, *arguments: str) -> list[dict[str, str]]:
    """``dimml make-manifest`` and the rows that it wrote."""
    out = tmp_path / "m.csv"
    result = CliRunner().invoke(make_manifest_app(), [*arguments, "--out", str(out)])
    assert result.exception is None, result.output
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def recording(path: Path, seconds: float, burst_s: float, options: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, seconds, sound=click_at(burst_s, 0.04), width=128, **options)


def check(path: Path, start_s: float, end_s: float, burst_s: float, late_s: float = 0.0) -> None:
    """The part holds the pictures of its time, and the burst where it belongs; all of it up to ``late_s`` later."""
    decoded = decode_source(path, SOUND, PICTURE, clip_s=20.0, start_s=start_s, end_s=end_s)
    assert statuses(decoded) == {"audio": "ok", "visual": "ok"}
    part_s = (end_s - start_s) / 4
    for i, shown in enumerate(row_of(decoded, "visual")):
        wanted_s = start_s + (i + 0.5) * part_s
        assert int((wanted_s - late_s) * FPS) <= read_number(shown) <= int(wanted_s * FPS + 1e-6)
    at_s = start_s + loudest_s(row_of(decoded, "audio"), SOUND.sample_rate_hz)
    assert burst_s + 0.02 - 0.01 <= at_s <= burst_s + 0.02 + late_s + 0.01


def grid(root: Path) -> Path:
    (root / "s1" / "align").mkdir(parents=True)
    for name, word in (("bbaf2n", "two"), ("bbaf3s", "three"), ("lwbz4p", "four")):
        text = BBAF2N.replace(" two\n", f" {word}\n")
        if name == "lwbz4p":
            for old, new in (("bin", "lay"), ("blue", "white"), (" at", " by"), (" f\n", " z\n"), ("now", "please")):
                text = text.replace(old, new)
        elif name == "bbaf3s":
            text = text.replace(" now\n", " sp\n").replace("53000 74500 sil", "53000 60000 soon\n60000 74500 sil")
        (root / "s1" / "align" / f"{name}.align").write_text(text)
        recording(root / "s1" / "video" / "mpg_6000" / f"{name}.mpg", 3.0, 1.7, GRID_MPG)
    return root


def test_grid_is_read_as_it_is_published(tmp_path: Path) -> None:
    root = grid(tmp_path / "grid")
    rows = table(tmp_path, "grid", "--root", str(root))
    assert {Path(row["media"]).stem: row["label"] for row in rows} == {
        "bbaf2n": "two",
        "bbaf3s": "three",
        "lwbz4p": "four",
    }
    row = rows[0]
    assert row == {
        "media": "s1/video/mpg_6000/bbaf2n.mpg",
        "label": "two",
        "split": "train",
        "start_s": "1.64",
        "end_s": "1.89",
    }
    # FFmpeg begins the sound of such a file up to 481 samples (an encoder's delay) before the pictures.
    check(root / row["media"], float(row["start_s"]), float(row["end_s"]), 1.7, late_s=0.012)
    assert [row["label"] for row in table(tmp_path, "grid", "--root", str(root), "--word", "adverb")] == [
        "now",
        "soon",
        "please",
    ]


def test_grid_clips_are_split_within_classes_by_seed(tmp_path: Path) -> None:
    for talker in ("s1", "s2"):
        for name in (f"bb{p}{letter}{d}n" for p in "ai" for letter in "fgh" for d in "2345678"):
            word = {"2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight"}[name[4]]
            text = BBAF2N.replace(" two\n", f" {word}\n").replace(" f\n", f" {name[3]}\n")
            path = tmp_path / talker / "align" / f"{name}.align"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(" at\n", " in\n") if name[2] == "i" else text)
            (tmp_path / talker / f"{name}.mpg").touch()
    (tmp_path / "s1" / "bbaz9a.mpg").touch()
    words = list_published_grid(tmp_path, "all", seed=3).rows
    assert len(words) == 6 * 2 * 2 * 3 * 7
    by_sentence: dict[str, set[str]] = {}
    for row in words:
        by_sentence.setdefault(row["media"], set()).add(row["split"])
    assert {len(splits) for splits in by_sentence.values()} == {1}
    assert {split for splits in by_sentence.values() for split in splits} == {"train", "validation", "test"}
    listing = list_published_grid(tmp_path, "digit", seed=3)
    assert len(listing.rows) == 2 * 2 * 3 * 7
    splits = {s: {row["label"] for row in listing.rows if row["split"] == s} for s in ("train", "validation", "test")}
    assert [len(found) for found in splits.values()] == [7, 7, 7]
    assert listing.rows == list_published_grid(tmp_path, "digit", seed=3).rows
    assert listing.rows != list_published_grid(tmp_path, "digit", seed=4).rows
    assert listing.warnings == [
        "1 clips have no alignment and are left out, such as bbaz9a",
        "clips of each of the 2 talkers are in all splits: figures are not of new talkers",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BBAF2N.replace("two", "three"), "is not the sentence bbaf2n"),
        (BBAF2N.replace("41000 47250 two\n", ""), "is not the sentence bbaf2n"),
        (BBAF2N.replace("41000 47250", "47250 41000"), "is not like '23750 29500 bin'"),
        ("two\n", "is not like '23750 29500 bin'"),
    ],
)
def test_a_wrong_alignment_is_refused_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bbaf2n.mpg").touch()
    (tmp_path / "bbaf2n.align").write_text(text)
    with pytest.raises(DataError, match=words):
        list_published_grid(tmp_path, "digit")


def test_a_folder_without_grid_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "bbaf2n.mpg").touch()
    with pytest.raises(DataError, match=r"neither a labels.csv nor a pair of NAME.mpg and NAME.align"):
        list_published_grid(tmp_path, "digit")


def test_crema_d_is_read_as_it_is_published(tmp_path: Path) -> None:
    root = tmp_path / "CREMA-D"
    (root / "AudioWAV").mkdir(parents=True)
    for actor in range(1001, 1005):
        name = f"{actor}_DFA_ANG_XX"
        recording(root / "VideoFlash" / f"{name}.flv", 2.4, 1.1, CREMA_FLV)
        time_s = np.arange(round(2.4 * 16_000)) / 16_000
        soundfile.write(root / "AudioWAV" / f"{name}.wav", click_at(1.1, 0.04)(time_s), 16_000)
    rows = table(tmp_path, "crema-d", "--root", str(root))
    assert len(rows) == 4
    # FLV's clock has milliseconds; the encoder's delay of 1105 samples moves both tracks alike.
    check(root / rows[0]["video"], 0.5, 1.5, 1.1, late_s=0.03)
    sound = row_of(decode_source(root / rows[0]["sound"], SOUND, clip_s=1.0, start_s=0.5, end_s=1.5), "audio")
    assert loudest_s(sound, 8000) == pytest.approx(0.62, abs=0.01)


def test_ucf101_is_read_as_it_is_published(tmp_path: Path) -> None:
    root = tmp_path / "UCF101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\r\n")
    clips = [f"Archery/v_Archery_g{g:02d}_c01.avi" for g in (1, 2, 3)]
    for number in (1, 2, 3):
        (lists / f"testlist0{number}.txt").write_text(f"{clips[0]}\r\n")
        (lists / f"trainlist0{number}.txt").write_text("\r\n".join(f"{clip} 1" for clip in clips[1:]))
    for clip in clips:
        path = recording(root / "UCF-101" / clip, 2.4, 1.1, UCF_AVI)
        assert b"XVID" in path.read_bytes()[:400]
    rows = table(tmp_path, "ucf101", "--root", str(root))
    assert len(rows) == 3
    # AVI counts pictures from 0: FFmpeg makes room for the encoder's delay of 1105 samples by a whole empty one.
    check(root / rows[1]["video"], 0.5, 1.5, 1.1, late_s=0.04)


def test_ave_is_read_as_it_is_published(tmp_path: Path) -> None:
    root = tmp_path / "AVE"
    for split, video in (("train", "---zaDCTaE"), ("val", "fCZi6I6kPpU"), ("test", "-ccciEuH9FE")):
        recording(root / "AVE" / f"{video}.mp4", 4.0, 2.6, AVE_MP4)
        (root / f"{split}Set.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}Set.txt").write_text(f"Church bell&{video}&good&2&3\n")
    rows = table(tmp_path, "ave", "--root", str(root))
    assert len(rows) == 3
    check(root / rows[0]["media"], float(rows[0]["start_s"]), float(rows[0]["end_s"]), 2.6)


def test_the_recordings_have_the_codecs_of_the_data_sets(tmp_path: Path) -> None:
    wanted = {
        "a.mpg": (GRID_MPG, "mpeg", "mpeg1video", "mp2"),
        "a.flv": (CREMA_FLV, "flv", "flv", "mp3"),
        "a.avi": (UCF_AVI, "avi", "mpeg4", "mp3"),
        "a.mp4": (AVE_MP4, "mov", "h264", "aac"),
    }
    for name, (options, container, video, audio) in wanted.items():
        with av.open(str(recording(tmp_path / name, 0.5, 0.1, options))) as file:
            assert container in file.format.name.split(",")
            codecs = {stream.type: stream.codec_context.name for stream in file.streams}
        assert {kind: codec.removesuffix("float") for kind, codec in codecs.items()} == {"video": video, "audio": audio}
