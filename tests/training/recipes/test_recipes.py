"""Each recipe on a miniature tree in the public layout, with the official split files' syntax; what is missing is said.

The files are empty unless a recipe reads them: a manifest lists, and training decodes.
"""

from __future__ import annotations

import csv
import gzip
import resource
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from typer.testing import CliRunner

from dimml.errors import ConfigurationError, DataError
from dimml.modality import Flow
from dimml_training.cli.make_manifest import make_manifest_app
from dimml_training.recipes import grid
from dimml_training.recipes.avmnist import make_avmnist, read_idx
from dimml_training.recipes.grid_published import SENTENCE
from dimml_training.recipes.splitting import by_subject, hold_out
from dimml_training.recipes.table import Row
from dimml_training.recipes.ucf101 import list_ucf101, pack_flow
from support.data import REPOSITORY_ROOT, shared_data
from support.decoding import decode_source, row_of

FOLDS = REPOSITORY_ROOT / "training" / "folds" / "grid_s1.csv"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def run(*arguments: str | Path, fails: type[Exception] | None = None) -> str:
    """``dimml make-manifest``; its output, or its error's message with all problems."""
    result = CliRunner().invoke(make_manifest_app(), [str(argument) for argument in arguments])
    if fails is None:
        assert result.exception is None, result.exception
        return result.output
    assert isinstance(result.exception, fails), result.output
    return "\n".join([str(result.exception), *getattr(result.exception, "problems", [])])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- what all share


def test_missing_clips_are_an_error_and_named_in_a_sidecar(tmp_path: Path) -> None:
    root, out = tmp_path / "ModelNet10", tmp_path / "m.csv"
    touch(root, *(f"bed/train/bed_{i}.shaded_{v}.png" for i in range(30) for v in ("v001", "v007")))
    touch(root, "bed/test/bed_90.shaded_v001.png", "bed/test/bed_91.shaded_v001.png", "bed/test/bed_91.shaded_v007.png")
    message = run("modelnet", "--root", root, "--out", out, fails=DataError)
    assert "1 of 32 clips have no file" in message
    assert "missing file bed/test/bed_90.shaded_v007.png" in message
    assert not out.exists()
    assert [row["subject"] for row in read(tmp_path / "m.missing.csv")] == ["bed_90"]

    output = run("modelnet", "--root", root, "--out", out, "--allow-missing")
    assert "warning: 1 clips have no file and are left out" in output
    assert len(read(out)) == 31
    assert len(read(tmp_path / "m.missing.csv")) == 1

    touch(root, "bed/test/bed_90.shaded_v007.png")
    run("modelnet", "--root", root, "--out", out)
    assert len(read(out)) == 32
    assert not (tmp_path / "m.missing.csv").exists()


def test_an_empty_or_absent_root_is_an_error(tmp_path: Path) -> None:
    assert "not a folder" in run("modelnet", "--root", tmp_path / "no", "--out", tmp_path / "m.csv", fails=DataError)
    assert "no clip" in run("modelnet", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)


def test_out_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"bed/train/bed_{i}.shaded_{v}.png" for i in range(2) for v in ("v001", "v007")))
    (tmp_path / "file").touch()
    run("modelnet", "--root", tmp_path, "--out", tmp_path / "file" / "m.csv", fails=ConfigurationError)
    run("modelnet", "--root", tmp_path, "--out", tmp_path, fails=SystemExit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bed", "file"]
    assert not tmp_path.with_name(f".{tmp_path.name}.part").exists()


def test_a_manifest_is_parquet_where_its_name_says_so(tmp_path: Path) -> None:
    touch(tmp_path, *(f"bed/train/bed_{i}.shaded_{v}.png" for i in range(2) for v in ("v001", "v007")))
    for name in ("m.csv", "m.parquet"):
        run("modelnet", "--root", tmp_path, "--out", tmp_path / name)
    assert pyarrow.parquet.read_table(tmp_path / "m.parquet").to_pylist() == read(tmp_path / "m.csv")


def test_fewer_clips_than_were_published_are_told(tmp_path: Path) -> None:
    for label in range(10):
        touch(tmp_path, *(f"c{label}/train/c_{i}.shaded_{v}.png" for i in range(2) for v in ("v001", "v007")))
    touch(tmp_path, "c0/test/c_9.shaded_v1.png", "c0/test/.DS_Store")
    output = " ".join(run("modelnet", "--root", tmp_path, "--out", tmp_path / "m.csv").split())
    assert "warning: 1 files are not named as views and left out, such as c0/test/c_9.shaded_v1.png" in output
    assert "warning: 20 of the 4899 objects that were published are there" in output
    shutil.rmtree(tmp_path / "c3")
    output = " ".join(run("modelnet", "--root", tmp_path, "--out", tmp_path / "m.csv").split())
    assert "warning: 18 of the 4899 objects that were published are there" in output


def test_a_full_disk_leaves_no_part_of_a_manifest(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: what was there before stays, and half of it is never read."""
    touch(tmp_path, *(f"bed/train/bed_{i:03d}.shaded_{v}.png" for i in range(200) for v in ("v001", "v007")))
    out = tmp_path / "m.csv"
    out.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        message = run("modelnet", "--root", tmp_path, "--out", out, fails=ConfigurationError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot write" in message
    assert out.read_text() == "before"


def test_a_line_that_is_cut_short_is_named(tmp_path: Path) -> None:
    kinetics(tmp_path, ("train", "validate", "test"))
    with (tmp_path / "train.csv").open("a") as file:
        file.write("\nbowling,abc")
    message = run("kinetics-sounds", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)
    assert "the line 'bowling,abc' ends before column 'time_start'" in message


def rows_of(labels: str, groups: Sequence[str] | None = None) -> list[Row]:
    return [
        {"media": f"{i:03d}", "label": label, "split": "train", "group": groups[i] if groups else str(i)}
        for i, label in enumerate(labels)
    ]


def test_validation_is_taken_by_label_whatever_the_order_of_the_rows() -> None:
    rows = rows_of("a" * 40 + "b" * 20 + "c")
    hold_out(rows, 0.1, seed=3)
    assert Counter(row["label"] for row in rows if row["split"] == "validation") == {"a": 4, "b": 2}
    shuffled = rows_of("a" * 40 + "b" * 20 + "c")[::-1]
    hold_out(shuffled, 0.1, seed=3)
    assert shuffled[::-1] == rows
    other = rows_of("a" * 40 + "b" * 20 + "c")
    hold_out(other, 0.1, seed=4)
    assert other != rows


def test_validation_takes_whole_groups() -> None:
    rows = rows_of("a" * 40, [f"g{i // 4}" for i in range(40)])
    hold_out(rows, 0.2, seed=0, by="group")
    splits = {row["group"]: {r["split"] for r in rows if r["group"] == row["group"]} for row in rows}
    assert all(len(found) == 1 for found in splits.values())
    assert sum(row["split"] == "validation" for row in rows) == 8


def test_subjects_are_cut_by_shares() -> None:
    splits = by_subject([f"s{i}" for i in range(20)] * 3, {"train": 0.7, "validation": 0.15, "test": 0.15}, seed=0)
    assert Counter(splits.values()) == {"train": 14, "validation": 3, "test": 3}


# --- CREMA-D


def crema(root: Path) -> list[str]:
    clips = [f"{actor}_{s}_{emotion}_XX" for actor in range(1001, 1021) for s in ("DFA", "IEO") for emotion in EMOTIONS]
    touch(root, *(f"AudioWAV/{clip}.wav" for clip in clips), *(f"VideoFlash/{clip}.flv" for clip in clips))
    return clips


EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


def test_crema_d_keeps_actors_apart(tmp_path: Path) -> None:
    root, out = tmp_path / "CREMA-D", tmp_path / "m.csv"
    crema(root)
    touch(root, "AudioWAV/notes.wav")
    output = run("crema-d", "--root", root, "--out", out)
    assert "warning: 1 files are not named as clips" in output
    # Clips of which neither file is there can only be counted.
    assert "warning: 240 of the 7442 clips that were published are there" in output
    rows = read(out)
    assert len(rows) == 240
    assert rows[0] == {
        "sound": "AudioWAV/1001_DFA_ANG_XX.wav",
        "video": "VideoFlash/1001_DFA_ANG_XX.flv",
        "label": "anger",
        "split": rows[0]["split"],
        "subject": "1001",
    }
    actors = {split: {r["subject"] for r in rows if r["split"] == split} for split in ("train", "validation", "test")}
    assert [len(found) for found in actors.values()] == [14, 3, 3]
    assert len(set.union(*actors.values())) == 20


def test_crema_d_reports_the_partner_that_is_missing(tmp_path: Path) -> None:
    clips = crema(tmp_path)
    (tmp_path / f"VideoFlash/{clips[5]}.flv").unlink()
    message = run("crema-d", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)
    assert f"missing file VideoFlash/{clips[5]}.flv" in message


def test_crema_d_by_the_papers_lists_warns_of_the_overlap(tmp_path: Path) -> None:
    root, out = tmp_path / "CREMA-D", tmp_path / "m.csv"
    clips = crema(root)
    for split, part in (("train", clips[::2]), ("test", clips[1::2])):
        lines = "".join(f"{clip},{clip.split('_')[2]}\n" for clip in part)
        (tmp_path / f"{split}.csv").write_text("\ufeff" + lines, encoding="utf-8")
    output = run("crema-d", "--root", root, "--out", out, "--paper-lists", tmp_path)
    assert "warning: 20 of 20 actors stand in both train and test" in output
    splits = Counter(row["split"] for row in read(out))
    assert splits["test"] == 120
    assert 6 <= splits["validation"] <= 18
    (tmp_path / "test.csv").write_text("1041_TIE_NEU_XX,HAP\n")
    assert "is not like" in run("crema-d", "--root", root, "--out", out, "--paper-lists", tmp_path, fails=DataError)


# --- AVE


def ave(root: Path) -> None:
    (root / "trainSet.txt").write_text(
        "Church bell&---zaDCTaE&good&0&10\nMale speech, man speaking&0I_Wwk-ebbeM&good&5&10\n"
    )
    (root / "valSet.txt").write_text("Church bell&fCZi6I6kPpU&good&6&10\n")
    (root / "testSet.txt").write_text("Male speech, man speaking&-ccciEuH9FE&good&5&10\n\n")
    (root / "Annotations.txt").write_text(
        "Category&VideoID&Quality&StartTime&EndTime\nChurch bell&fCZi6I6kPpU&good&6&10\nBark&only_here&good&0&3\n"
    )
    touch(root, *(f"AVE/{v}.mp4" for v in ("---zaDCTaE", "0I_Wwk-ebbeM", "fCZi6I6kPpU", "-ccciEuH9FE")))


def test_ave_reads_the_official_lists(tmp_path: Path) -> None:
    ave(tmp_path)
    output = run("ave", "--root", tmp_path, "--out", tmp_path / "m.csv")
    assert "1 videos of Annotations.txt are in no list, such as only_here" in output
    rows = read(tmp_path / "m.csv")
    assert [row["split"] for row in rows] == ["train", "train", "validation", "test"]
    assert rows[1] == {
        "media": "AVE/0I_Wwk-ebbeM.mp4",
        "label": "Male speech, man speaking",
        "split": "train",
        "subject": "0I_Wwk-ebbeM",
        "start_s": "5",
        "end_s": "10",
    }
    (tmp_path / "AVE" / "fCZi6I6kPpU.mp4").unlink()
    message = run("ave", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)
    assert "1 of 4 clips have no file" in message
    assert "missing file AVE/fCZi6I6kPpU.mp4" in message


def test_ave_says_which_line_does_not_fit_and_which_video_is_in_two_lists(tmp_path: Path) -> None:
    ave(tmp_path)
    (tmp_path / "valSet.txt").write_text("Church bell&---zaDCTaE&good&0&3\n")
    assert "1 videos stand in more than one" in run("ave", "--root", tmp_path, "--out", tmp_path / "m.csv")
    (tmp_path / "valSet.txt").write_text("Church bell&x&good&7&7\n")
    assert "valSet.txt: 'Church bell&x&good&7&7'" in run(
        "ave", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError
    )
    (tmp_path / "valSet.txt").unlink()
    assert "valSet.txt" in run("ave", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)


# --- Kinetics-Sounds


def kinetics(root: Path, splits: Sequence[str]) -> None:
    (root / "classes.txt").write_text("bowling\ntap dancing\n")
    for number, split in enumerate(splits):
        lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
        for index in range(20):
            label = ("bowling", "tap dancing", "abseiling")[index % 3]
            video = f"-{number}_{index:08d}"
            lines.append(f'"{label}",{video},{index},{index + 10},{split},0')
            touch(root, f"videos/{split}/{label}/{video}_{index:06d}_{index + 10:06d}.mp4")
        (root / f"{split}.csv").write_text("\n".join(lines))


def test_kinetics_sounds_finds_clips_wherever_they_lie(tmp_path: Path) -> None:
    kinetics(tmp_path, ("train", "validate", "test"))
    options = ("--root", tmp_path, "--out", tmp_path / "m.csv", "--classes", tmp_path / "classes.txt")
    run("kinetics-sounds", *options)
    rows = read(tmp_path / "m.csv")
    assert Counter(row["split"] for row in rows) == {"train": 14, "validation": 14, "test": 14}
    assert {row["label"] for row in rows} == {"bowling", "tap dancing"}
    assert rows[1]["media"] == "videos/train/tap dancing/-0_00000001_000001_000011.mp4"
    (tmp_path / rows[1]["media"]).unlink()
    assert "train/tap dancing/-0_00000001_000001_000011.mp4" in run("kinetics-sounds", *options, fails=DataError)


def test_kinetics_sounds_without_a_labelled_test_list(tmp_path: Path) -> None:
    kinetics(tmp_path, ("train", "val"))
    options = ("--root", tmp_path, "--out", tmp_path / "m.csv", "--classes", tmp_path / "classes.txt")
    assert "the official validation split is the test split" in run("kinetics-sounds", *options)
    assert Counter(row["split"] for row in read(tmp_path / "m.csv")) == {"train": 12, "validation": 2, "test": 14}


def test_kinetics_sounds_needs_all_of_its_31_classes(tmp_path: Path) -> None:
    kinetics(tmp_path, ("train", "val"))
    message = run("kinetics-sounds", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)
    assert "no clip of class 'blowing nose'" in message


# --- UCF-101


def ucf(root: Path) -> list[str]:
    """Two classes, groups 1 to 25 of two clips; list k tests seven groups from 7(k-1)+1 on."""
    classes = ("ApplyEyeMakeup", "Archery")
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{i} {c}\r\n" for i, c in enumerate(classes, start=1)))
    clips = [f"{c}/v_{c}_g{g:02d}_c0{n}.avi" for c in classes for g in range(1, 26) for n in (1, 2)]
    for number in (1, 2, 3):
        tested = {f"_g{g:02d}_" for g in range(7 * number - 6, 7 * number + 1)}
        test = [clip for clip in clips if any(group in clip for group in tested)]
        train = [f"{clip} {1 + (clip.startswith('Archery'))}" for clip in clips if clip not in test]
        (lists / f"testlist0{number}.txt").write_text("\r\n".join(test))
        (lists / f"trainlist0{number}.txt").write_text("\r\n".join(train))
    touch(root, *(f"UCF-101/{clip}" for clip in clips))
    return clips


def test_ucf101_has_all_three_lists_and_keeps_groups_apart(tmp_path: Path) -> None:
    clips = ucf(tmp_path)
    run("ucf101", "--root", tmp_path, "--out", tmp_path / "m.csv")
    rows = read(tmp_path / "m.csv")
    (tmp_path / "ucfTrainTestlist").rename(tmp_path / "elsewhere")
    run("ucf101", "--root", tmp_path, "--out", tmp_path / "m.csv", "--lists", tmp_path / "elsewhere")
    assert read(tmp_path / "m.csv") == rows
    assert len(rows) == len(clips) == 100
    assert rows[0]["video"] == f"UCF-101/{clips[0]}"
    assert rows[0]["subject"] == "ApplyEyeMakeup_g01"
    assert rows[0]["split_1"] == "test"
    for k in (1, 2, 3):
        assert Counter(row[f"split_{k}"] for row in rows) == {"train": 64, "validation": 8, "test": 28}
        assert max(len({r[f"split_{k}"] for r in rows if r["subject"] == row["subject"]}) for row in rows) == 1
    (tmp_path / "UCF-101" / clips[3]).unlink()
    out = ("--root", tmp_path, "--out", tmp_path / "m.csv", "--lists", tmp_path / "elsewhere")
    assert f"missing file UCF-101/{clips[3]}" in run("ucf101", *out, fails=DataError)


def test_ucf101_refuses_lists_that_contradict_each_other(tmp_path: Path) -> None:
    clips = ucf(tmp_path)
    path = tmp_path / "ucfTrainTestlist" / "testlist02.txt"
    path.write_text(path.read_text() + f"\r\n{clips[0]}")
    assert "stands in both lists 2" in run("ucf101", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)
    path.write_text("Dancing/v_Dancing_g01_c01.avi")
    assert "Dancing" in run("ucf101", "--root", tmp_path, "--out", tmp_path / "m.csv", fails=DataError)


def flow_pairs(root: Path, clips: Sequence[str]) -> None:
    """Per clip 6 pairs of 64 x 32; the flow of picture i is i px to the right and 2 up."""
    for clip in clips:
        for axis, scale, offset in (("u", 1.0, 0.0), ("v", 0.0, -2.0)):
            folder = root / axis / Path(clip).stem
            folder.mkdir(parents=True)
            for i in range(6):
                value = round((scale * i + offset + 20.0) * 255 / 40)
                cv2.imwrite(str(folder / f"frame{i + 1:06d}.jpg"), np.full((32, 64), value, np.uint8))


def test_ucf101_packs_published_flow(tmp_path: Path) -> None:
    clips = ucf(tmp_path / "ucf")
    flow_pairs(tmp_path / "tvl1_flow", clips)
    options = ("--flow", tmp_path / "tvl1_flow", "--media-out", tmp_path / "packed", "--flow-frames", "3")
    run("ucf101", "--root", tmp_path / "ucf", "--out", tmp_path / "m.csv", *options, "--flow-height", "16")
    rows = read(tmp_path / "m.csv")
    flow = np.load(rows[0]["flow"])
    assert flow.shape == (3, 16, 32, 2)
    assert flow.dtype == np.float16
    # Pictures 1, 3 and 5 of 0 to 5, at half the size; a byte is 0.16 px.
    assert flow[..., 0].mean(axis=(1, 2)) == pytest.approx([0.5, 1.5, 2.5], abs=0.05)
    assert flow[..., 1].mean() == pytest.approx(-1.0, abs=0.05)
    # What training makes of it: at a quarter of the packed size, in steps of 5/127 px.
    run("ucf101", "--root", tmp_path / "ucf", "--out", tmp_path / "c.csv", *options, "--flow-consecutive")
    message = run(
        "ucf101", "--root", tmp_path, "--out", tmp_path / "c.csv", "--flow-consecutive", fails=ConfigurationError
    )
    assert "among the pairs of --flow" in message
    middle = np.load(read(tmp_path / "c.csv")[0]["flow"])
    assert middle[..., 0].mean(axis=(1, 2)) == pytest.approx([1.0, 2.0, 3.0], abs=0.1), "pictures 1, 2 and 3"
    modality = Flow(name="flow", frames=3, height=8, width=16, bound_px=5.0)
    row = row_of(decode_source(Path(rows[0]["flow"]), modality), "flow").astype(float)
    assert (row[..., 0].mean(axis=(1, 2)) - 128) * 5 / 127 == pytest.approx([0.25, 0.75, 1.25], abs=0.05)


def test_ucf101_does_not_take_flow_that_was_packed_otherwise(tmp_path: Path) -> None:
    flow_pairs(tmp_path / "flow", ucf(tmp_path / "ucf"))
    for frames, height in ((2, 16), (3, 16), (3, 8)):
        packed = pack_flow(
            list_ucf101(tmp_path / "ucf"), tmp_path / "flow", tmp_path / "packed", frames=frames, height=height
        )
        assert {np.load(row["flow"]).shape for row in packed.rows} == {(frames, height, 2 * height, 2)}


def test_ucf101_reports_flow_that_is_missing_or_does_not_pair(tmp_path: Path) -> None:
    clips = ucf(tmp_path / "ucf")
    flow_pairs(tmp_path / "flow", clips[1:])
    listing = pack_flow(list_ucf101(tmp_path / "ucf"), tmp_path / "flow", tmp_path / "packed", frames=2, height=16)
    assert listing.rows[0]["flow"].endswith("/flow/u/v_ApplyEyeMakeup_g01_c01")
    (tmp_path / "flow" / "v" / Path(clips[3]).stem / "frame000006.jpg").unlink()
    (packed,) = (tmp_path / "packed").rglob(f"{Path(clips[3]).stem}.npy")
    packed.unlink()
    options = ("--flow", tmp_path / "flow", "--media-out", tmp_path / "packed", "--flow-frames", "2")
    options = (*options, "--flow-height", "16")
    message = run("ucf101", "--root", tmp_path / "ucf", "--out", tmp_path / "m.csv", *options, fails=DataError)
    assert f"{Path(clips[3]).stem}: u has 6 pictures and v has 5" in message


# --- GRID


def test_the_committed_folds_are_what_the_function_makes_of_the_corpus() -> None:
    labels = read(shared_data("grid_s1") / "labels.csv")
    with FOLDS.open(newline="") as file:
        committed = [(row["clip"], int(row["fold"])) for row in csv.DictReader(file)]
    assert committed == grid.assign_folds(labels, seed=0)


@pytest.mark.parametrize(("word", "fewest"), [("digit", 10), ("letter", 3), ("colour", 28)])
def test_every_fold_tests_each_clip_once_and_holds_every_class(tmp_path: Path, word: str, fewest: int) -> None:
    root = shared_data("grid_s1")
    run("grid", "--root", root, "--out", tmp_path / "m.csv", "--word", word, "--folds", FOLDS)
    rows = read(tmp_path / "m.csv")
    assert len(rows) == 900
    for k in range(grid.FOLDS):
        assert Counter(row[f"fold_{k}"] for row in rows) == {"train": 600, "validation": 120, "test": 180}
        for split in ("train", "validation", "test"):
            counts = Counter(row["label"] for row in rows if row[f"fold_{k}"] == split)
            assert len(counts) == len({row["label"] for row in rows})
            assert min(counts.values()) >= fewest
    assert all([row[f"fold_{k}"] for k in range(grid.FOLDS)].count("test") == 1 for row in rows)


def test_all_words_of_a_sentence_are_rows_in_its_split(tmp_path: Path) -> None:
    root = shared_data("grid_s1")
    run("grid", "--root", root, "--out", tmp_path / "all.csv", "--word", "all", "--folds", FOLDS)
    run("grid", "--root", root, "--out", tmp_path / "digit.csv", "--word", "digit", "--folds", FOLDS)
    rows, digits = read(tmp_path / "all.csv"), read(tmp_path / "digit.csv")
    assert len(rows) == 6 * 900
    assert len({row["label"] for row in rows}) == 4 + 4 + 4 + 25 + 10 + 4
    assert [row for row in rows if row["label"] in {r["label"] for r in digits}] == digits
    of_media = {row["media"]: row for row in digits}
    for row in rows:
        assert [row[f"fold_{k}"] for k in range(5)] == [of_media[row["media"]][f"fold_{k}"] for k in range(5)]
    (first,) = {row["media"] for row in rows[:6]}
    spelt = next(row for row in read(root / "labels.csv") if f"clips/{row['clip']}" == first)
    assert [row["label"] for row in rows[:6]] == [spelt[word] for word in SENTENCE]
    assert [row["start_s"] for row in rows[:6]] == [spelt[f"{word}_start_s"] for word in SENTENCE]


def test_grid_refuses_folds_of_other_clips(tmp_path: Path) -> None:
    head = "clip,digit,digit_start_s,digit_end_s,split\n"
    (tmp_path / "labels.csv").write_text(head + "a.mp4,one,0.1,0.2,train\nb.mp4,two,0.1,0.2,test\n")
    (tmp_path / "folds.csv").write_text("clip,fold\na.mp4,0\nc.mp4,1\n")
    touch(tmp_path, "clips/a.mp4", "clips/b.mp4")
    options = ("--root", tmp_path, "--out", tmp_path / "m.csv")
    assert "such as b.mp4" in run("grid", *options, "--folds", tmp_path / "folds.csv", fails=DataError)
    (tmp_path / "folds.csv").write_text("clip,fold\na.mp4,0\nb.mp4,5\n")
    assert "fold '5' of b.mp4" in run("grid", *options, "--folds", tmp_path / "folds.csv", fails=DataError)
    run("grid", *options)
    assert read(tmp_path / "m.csv")[0]["media"] == "clips/a.mp4"


# --- AV-MNIST


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()) if path.suffix == ".gz" else b"")


def avmnist(root: Path) -> None:
    """Digits as a bright row at a place of their own, with noise; recordings as tones."""
    rng = np.random.default_rng(0)
    for name, each in (("train", 8), ("t10k", 4)):
        labels = np.tile(np.arange(10), each)
        pictures = rng.integers(0, 30, (len(labels), 28, 28))
        for picture, label in zip(pictures, labels, strict=True):
            picture[2 + 2 * label] += 200
        write_idx(root / f"mnist/{name}-images-idx3-ubyte.gz", pictures)
        write_idx(root / f"mnist/{name}-labels-idx1-ubyte.gz", labels)
    (root / "fsdd/recordings").mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in (0, 4, 5, 9, 10, 11):
                tone = 0.5 * np.sin(np.arange(1600) * (0.1 + 0.05 * digit))
                soundfile.write(root / f"fsdd/recordings/{digit}_{speaker}_{index}.wav", tone, 8000)


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimml_training.recipes.avmnist.PAIRS", {"train": 60, "validation": 20, "test": 40})


@pytest.mark.usefixtures("few_pairs")
@pytest.mark.parametrize("hard", [False, True])
def test_avmnist_pairs_by_label_within_the_official_splits(tmp_path: Path, hard: bool) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    avmnist(root)
    listing = make_avmnist(root, out, hard=hard)
    assert Counter(row["split"] for row in listing.rows) == {"train": 60, "validation": 20, "test": 40}
    assert len({row["picture"] for row in listing.rows}) == 120
    index_of_split = {"train": {10, 11}, "validation": {5, 9}, "test": {0, 4}}
    digits = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for row in listing.rows:
        *_, digit, speaker, index = Path(row["sound"]).stem.split("_")
        assert int(index) in index_of_split[row["split"]]
        assert (digits[int(digit)], speaker) == (row["label"], row["subject"])
        assert row["picture"].startswith("picture/t10k" if row["split"] == "test" else "picture/train")
        assert (out / row["sound"]).is_file()
    used = Counter(Path(row["sound"]).stem for row in listing.rows if row["split"] == "test" and not hard)
    assert set(used.values()) <= {1}
    assert listing.warnings == ["120 of the 3000 recordings of FSDD that were published are there"]
    picture = cv2.imread(str(out / listing.rows[0]["picture"]), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (28, 28)


@pytest.mark.usefixtures("few_pairs")
def test_the_hard_form_keeps_a_quarter_of_the_energy_and_adds_noise(tmp_path: Path) -> None:
    avmnist(tmp_path / "in")
    plain = make_avmnist(tmp_path / "in", tmp_path / "plain", hard=False).rows
    hard = make_avmnist(tmp_path / "in", tmp_path / "hard", hard=True).rows
    again = make_avmnist(tmp_path / "in", tmp_path / "again", hard=True).rows
    assert hard == again

    def pictures(folder: str, rows: Sequence[Row]) -> np.ndarray:
        paths = [str(tmp_path / folder / row["picture"]) for row in rows if row["split"] == "train"]
        return np.stack([cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(float) for path in paths])

    kept = pictures("hard", hard).var(axis=0).sum() / pictures("plain", plain).var(axis=0).sum()
    assert 0.2 < kept < 0.45
    for clean, noisy in zip(plain[:10], hard[:10], strict=True):
        assert (clean["label"], clean["picture"]) == (noisy["label"], noisy["picture"])
        sound, _ = soundfile.read(tmp_path / "plain" / clean["sound"])
        heard, _ = soundfile.read(tmp_path / "hard" / noisy["sound"])
        assert len(sound) == len(heard)
        # What the clean sound explains of the noisy one: the ratio of powers is -5 dB.
        scale = float(sound @ heard / (sound @ sound))
        rest = heard - scale * sound
        assert -9.0 < 10 * np.log10((scale * sound).var() / rest.var()) < 0.0
        assert (tmp_path / "hard" / noisy["sound"]).read_bytes() == (tmp_path / "again" / noisy["sound"]).read_bytes()


@pytest.mark.usefixtures("few_pairs")
def test_avmnist_keeps_its_forms_apart(tmp_path: Path) -> None:
    avmnist(tmp_path / "in")
    rows = make_avmnist(tmp_path / "in", tmp_path / "out", hard=False).rows
    picture = (tmp_path / "out" / rows[0]["picture"]).read_bytes()
    with pytest.raises(ConfigurationError, match=r"holds other media of AV-MNIST \(plain\)"):
        make_avmnist(tmp_path / "in", tmp_path / "out", hard=True)
    assert (tmp_path / "out" / rows[0]["picture"]).read_bytes() == picture
    assert make_avmnist(tmp_path / "in", tmp_path / "out", hard=False).rows == rows


@pytest.mark.usefixtures("few_pairs")
def test_avmnist_says_what_is_missing_or_broken(tmp_path: Path) -> None:
    root = tmp_path / "in"
    avmnist(root)
    options = ("--root", root, "--media-out", tmp_path / "out", "--out", tmp_path / "m.csv")
    path = root / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(b"not gzip")
    assert "t10k-labels" in run("avmnist", *options, fails=DataError)
    path.unlink()
    for speaker in ("ann", "bob"):
        for index in (0, 4):
            (root / f"fsdd/recordings/3_{speaker}_{index}.wav").unlink()
    assert "no recording for test of digit 3" in run("avmnist", *options, fails=DataError)
    with pytest.raises(DataError, match="t10k-labels"):
        read_idx(root / "mnist/t10k-labels-idx1-ubyte")


# --- UTD-MHAD


def utd_mhad(root: Path) -> None:
    lines = ["depth,inertial,action,subject,trial"]
    for subject in range(1, 9):
        for action, name in enumerate(("wave", "throw"), start=1):
            clip = f"a{action:02d}_s{subject}_t1"
            touch(root, f"depth/{clip}.mp4", f"inertial/{clip}.npy")
            lines.append(f"depth/{clip}.mp4,inertial/{clip}.npy,{name},{subject},1")
    (root / "labels.csv").write_text("\n".join(lines))


def test_utd_mhad_is_split_by_person(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "m.csv"
    utd_mhad(root)
    assert "16 of the 861 recordings" in run("utd-mhad", "--root", root, "--out", out)
    rows = read(out)
    assert {(row["subject"], row["split"]) for row in rows} == {
        *((subject, "train") for subject in "135"),
        ("7", "validation"),
        *((subject, "test") for subject in "2468"),
    }
    assert rows[0] == {
        "depth": "depth/a01_s1_t1.mp4",
        "inertial": "inertial/a01_s1_t1.npy",
        "label": "wave",
        "subject": "1",
        "split": "train",
        **{"fold_1": "validation", "fold_3": "train", "fold_5": "train", "fold_7": "train"},
    }
    for subject in "1357":
        assert {row["subject"] for row in rows if row[f"fold_{subject}"] == "validation"} == {subject}
        assert {row["subject"] for row in rows if row[f"fold_{subject}"] == "test"} == set("2468")
    run("utd-mhad", "--root", root, "--out", out, "--validation-subject", "1")
    assert {row["subject"] for row in read(out) if row["split"] == "validation"} == {"1"}


def test_nobody_who_tests_validates(tmp_path: Path) -> None:
    utd_mhad(tmp_path)
    message = run("utd-mhad", "--root", tmp_path, "--out", tmp_path / "m", "--validation-subject", "2", fails=DataError)
    assert "choose one of 1, 3, 5, 7" in message
