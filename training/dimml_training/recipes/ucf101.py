"""UCF-101 (Soomro et al. 2012): 13320 clips of 101 actions; picture and optical flow.

Layout: ``{class}/v_{class}_gNN_cNN.avi`` (perhaps in a folder ``UCF-101``), and the official lists ``classInd.txt``,
``trainlist01.txt`` to ``03`` and ``testlist01.txt`` to ``03`` (perhaps in a folder ``ucfTrainTestlist``). All three
splits are in one clip table, as columns ``split_1`` to ``split_3``: choose one by ``data.columns.split``. A list has
no validation split: of each class, groups (clips of one source video) with about 10 % of its training clips become
one, by seed.

Flow is computed while the video is decoded (DIS), or was computed beforehand as pairs of pictures, horizontal in
``u/{clip}/frame000001.jpg``, vertical in ``v/…``, 0 to 255 for -20 to 20 px (TV-L1 flow of Feichtenhofer et al. 2016,
which the reference code of DI-MML reads). Pairs are packed into one npy file a clip (docs/media.md).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml_training.recipes.splitting import hold_out
from dimml_training.recipes.table import Listing, Row, folder, read_lines, write_whole

LISTS = ("1", "2", "3")
VALIDATION_SHARE = 0.1
#: Displacement of a byte of 255 in published flow pictures; a byte of 0 is minus that.
PAIR_BOUND_PX = 20.0
_CLIP = re.compile(r"(?P<label>\w+)/v_\w+_(?P<group>g\d+)_c\d+\.avi")


def list_ucf101(root: Path, *, lists: Path | None = None, seed: int = 0) -> Listing:
    """List one row per clip: ``video`` beneath root, label, ``subject`` (class and group), ``split_1`` to ``split_3``.

    ``lists`` is the folder of the official lists, if not in root. Raises DataError if a list cannot be read, has a
    malformed line, or if a clip is missing from a split or in both lists of one.
    """
    videos = root / "UCF-101" if (root / "UCF-101").is_dir() else folder(root)
    if lists is None:
        lists = root / "ucfTrainTestlist" if (root / "ucfTrainTestlist").is_dir() else root
    classes = {name for _, name in (_pair(line, lists) for line in read_lines(lists / "classInd.txt", "the classes"))}
    rows: dict[str, Row] = {}
    prefix = f"{videos.relative_to(root)}/" if videos != root else ""
    for number in LISTS:
        for split in ("train", "test"):
            path = lists / f"{split}list0{number}.txt"
            for line in read_lines(path, "a split list"):
                # Training lists have the class number after the clip.
                name = line.split(" ")[0]
                match = _CLIP.fullmatch(name)
                if match is None or match["label"] not in classes:
                    raise DataError(f"{path}: {line!r} is not a clip of a class of classInd.txt", field=str(path))
                row = rows.setdefault(
                    name,
                    {
                        "video": f"{prefix}{name}",
                        "label": match["label"],
                        "subject": f"{match['label']}_{match['group']}",
                    },
                )
                if row.setdefault(f"split_{number}", split) != split:
                    raise DataError(f"{path}: {name} stands in both lists {number}", field=str(path))
    partly = sorted(name for name, row in rows.items() if any(f"split_{number}" not in row for number in LISTS))
    if partly:
        raise DataError(f"{lists}: {len(partly)} clips are not in every split, such as {partly[0]}", field="--root")
    listed = [rows[name] for name in sorted(rows)]
    for number in LISTS:
        hold_out(listed, VALIDATION_SHARE, seed=seed, by="subject", column=f"split_{number}")
    return Listing(listed, ["video"])


def pack_flow(
    listing: Listing,
    pairs: Path,
    media_out: Path,
    *,
    frames: int,
    height: int,
    consecutive: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Listing:
    """Pack published flow and add a column ``flow``: one npy file per clip beneath ``media_out``.

    A file holds ``frames`` pairs, spread evenly over the clip or, if ``consecutive``, one after another in its middle.
    ``pairs`` holds the folders u and v. Pictures higher than ``height`` are scaled down, and their flow with them.
    Files packed by an interrupted call are kept; each combination of frames, height and ``consecutive`` has its own
    folder, so that files of other settings are never used. A clip without pairs gets the path of the missing folder,
    and is reported when the clip table is written. Raises DataError listing every clip whose pairs do not fit together.
    """
    # Some releases spell HandstandPushups in two ways.
    of_clip = {axis: {path.name.lower(): path for path in folder(pairs, axis).iterdir()} for axis in ("u", "v")}
    rows: list[Row] = []
    problems: list[str] = []
    for done, row in enumerate(listing.rows, start=1):
        if progress is not None:
            progress(done, len(listing.rows))
        name = Path(row["video"]).stem
        folders = [of_clip[axis].get(name.lower()) for axis in ("u", "v")]
        packed = f"{frames}_frames_{height}_px{'_consecutive' if consecutive else ''}"
        out = media_out.resolve() / packed / f"{name}.npy"
        if folders[0] is None or folders[1] is None:
            missing = pairs.resolve() / ("u" if folders[0] is None else "v") / name
            rows.append({**row, "flow": str(missing)})
            continue
        try:
            if not out.exists():
                flow = _packed([folders[0], folders[1]], frames, height, consecutive=consecutive)
                write_whole(out, _npy(flow), "--media-out")
        except ValueError as error:
            problems.append(f"{name}: {error}")
        rows.append({**row, "flow": str(out)})
    if problems:
        raise DataError(f"{pairs}: pairs of {len(problems)} clips are not usable", problems=problems, field="--flow")
    return Listing(rows, [*listing.media, "flow"], listing.warnings)


def _packed(folders: Sequence[Path], frames: int, height: int, *, consecutive: bool) -> npt.NDArray[np.float16]:
    """Read the displacements ``[frames, height, width, 2]`` of one clip. Raises ValueError."""
    of_axis = [sorted(path for path in axis.iterdir() if path.suffix in {".jpg", ".png"}) for axis in folders]
    if [path.stem for path in of_axis[0]] != [path.stem for path in of_axis[1]] or not of_axis[0]:
        raise ValueError(f"u has {len(of_axis[0])} pictures and v has {len(of_axis[1])}, or they are named differently")
    count = len(of_axis[0])
    if consecutive:
        first = max(0, (count - frames) // 2)
        chosen = list(range(first, min(count, first + frames)))
    else:
        chosen = sorted({int((i + 0.5) * count / frames) for i in range(frames)})
    return np.stack([_displacement(of_axis[0][i], of_axis[1][i], height) for i in chosen]).astype(np.float16)


def _displacement(u: Path, v: Path, height: int) -> npt.NDArray[np.float32]:
    components = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (u, v)]
    if components[0] is None or components[1] is None or components[0].shape != components[1].shape:
        raise ValueError(f"{u.name} of u and of v are not two pictures of one size")
    flow = np.stack([np.asarray(c, np.float32) for c in components], axis=-1) * (2 * PAIR_BOUND_PX / 255.0)
    flow -= PAIR_BOUND_PX
    tall, wide = flow.shape[:2]
    if tall <= height:
        return flow
    width = max(1, round(wide * height / tall))
    resized = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized * np.array([width / wide, height / tall], np.float32), np.float32)


def _npy(flow: npt.NDArray[np.float16]) -> bytes:
    file = io.BytesIO()
    np.save(file, flow)
    return file.getvalue()


def _pair(line: str, lists: Path) -> tuple[str, str]:
    number, _, name = line.partition(" ")
    if not number.isdigit() or not name:
        raise DataError(f"{lists / 'classInd.txt'}: {line!r} is not like '1 ApplyEyeMakeup'", field="classInd.txt")
    return number, name
