"""The kinds of the paper, and three modalities at once: train, export, serve, predict, on small data.

What a served bundle answers to a file must be what ``dimml evaluate`` says of the same clip.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from dimml.cli import main
from dimml.media import DecodeRequest, decode
from dimml.modality import Flow
from support.forked import run_forked
from support.server_process import ServerProcess, running_server
from support.tiny_training import BACKBONE, OPTIMISER, document, write_clips

# Four small trainings and exports come before the first test.
pytestmark = pytest.mark.timeout(300)

PICTURE: dict[str, Any] = {"encoder": {"backbone": BACKBONE}}
FLOW = {"kind": "flow", "name": "flow", "frames": 2, "height": 24, "width": 32, "bound_px": 8.0}
LIPS = {"kind": "frames", "name": "lips", "frames": 2, "height": 24, "width": 24}
#: Of ``support.tiny_training``: with it a range of 0.5 s in a recording of 0.8 s is all of it.
MARGIN_S = 0.3
KINDS = ("audio_visual", "picture_flow", "two_views", "three")


def clip_config(kind: str, manifest: Path) -> dict[str, Any]:
    """Recordings of stripes that drift and of a tone."""
    whole = document(manifest)
    modalities = {
        "audio_visual": whole["modalities"],
        "picture_flow": [{"input": LIPS, **PICTURE}, {"input": FLOW, **PICTURE}],
        "three": [whole["modalities"][0], {"input": LIPS, **PICTURE}, {"input": FLOW, **PICTURE}],
    }
    return whole | {"name": kind, "modalities": modalities[kind]}


def view_config(folder: Path) -> dict[str, Any]:
    """Objects as two PNGs, listed by the recipe for ModelNet: bars that lie or stand."""
    rng = np.random.default_rng(0)
    for label, axis in (("lying", 0), ("standing", 1)):
        for split, count in (("train", 12), ("test", 3)):
            (folder / label / split).mkdir(parents=True)
            for number in range(count):
                for view in ("v001", "v007"):
                    picture = rng.integers(0, 60, (32, 32)).astype(np.uint8)
                    bar = slice(4 + number % 3 * 8, 10 + number % 3 * 8)
                    picture[(bar, slice(None)) if axis == 0 else (slice(None), bar)] = 220
                    cv2.imwrite(str(folder / label / split / f"{label}_{split}{number}.shaded_{view}.png"), picture)
    assert main(["make-manifest", "modelnet", "--root", str(folder), "--out", str(folder / "views.csv")]) == 0
    views = [
        {
            "input": {"kind": "frames", "name": name, "tensor": name.upper(), "frames": 1, "height": 24, "width": 24},
            "encoder": {"backbone": BACKBONE, "grey": True},
        }
        for name in ("front", "rear")
    ]
    return {
        "name": "two_views",
        "threads": 1,
        "data": {
            "manifest": str(folder / "views.csv"),
            "columns": {"media": {"front": "front", "rear": "rear"}, "subject": "subject"},
            "split_by": "subject",
        },
        "modalities": views,
        "stage1": {"epochs": 4, "warmup_epochs": 1, "batch_size": 4, "optimiser": OPTIMISER},
        "stage2": {"epochs": 2, "optimiser": OPTIMISER},
        # Fixed: the choice of a fusion has tests of its own.
        "fusion": {"fused_head": True},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a table of what ``evaluate`` answers, and an exported bundle, for every kind."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "clips").mkdir()
    manifest = write_clips(folder / "clips")
    cache = ["--cache-dir", str(folder / "cache")]
    for kind in KINDS:
        content = view_config(folder / "views") if kind == "two_views" else clip_config(kind, manifest)
        config, run = folder / f"{kind}.yaml", folder / kind
        config.write_text(yaml.safe_dump(content))
        assert main(["train", str(config), "--out", str(run), *cache]) == 0
        assert main(["evaluate", str(run), "--predictions", str(folder / f"{kind}.csv"), *cache]) == 0
        assert main(["export", str(run), "--repository", str(folder / "bundles")]) == 0
    return folder


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[ServerProcess]:
    with running_server(trained / "bundles") as process:
        yield process


def expected(trained: Path, kind: str) -> list[dict[str, str]]:
    with (trained / f"{kind}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def predict(server: ServerProcess, kind: str, *arguments: str) -> dict[str, Any]:
    """One answer of the command ``dimml predict``."""
    command = [sys.executable, "-m", "dimml", "predict", "--url", server.url, "--model", kind, "--json", "--top-k", "2"]
    done = run_forked([*command, *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def files_of(row: dict[str, str]) -> list[str]:
    """The row's files as arguments: one recording, or a file of its own for each modality."""
    paths = {key.removeprefix("path_"): path for key, path in row.items() if key.startswith("path_")}
    if len(set(paths.values())) == 1:
        end = ["--end", row["end_s"]] if row["end_s"] else []
        return [next(iter(paths.values())), "--start", row["start_s"], *end]
    return [word for name, path in paths.items() for word in ("--modality", f"{name}={path}")]


def same(answer: dict[str, Any], row: dict[str, str]) -> None:
    assert answer["label"] == row["predicted"]
    assert len(answer["predictions"]) == 2
    for found in answer["predictions"]:
        assert found["probability"] == pytest.approx(float(row[f"probability_{found['label']}"]), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_as_the_training_said(trained: Path, server: ServerProcess, kind: str) -> None:
    rows = expected(trained, kind)
    for row in (rows[0], rows[-1]):
        answer = predict(server, kind, *files_of(row))
        same(answer, row)
        assert not answer["degraded"]
    assert {"lips", "flow"} <= set(answer["modalities"]) or kind in {"audio_visual", "two_views"}


@pytest.mark.parametrize("engine", ["local", "server"])
def test_the_training_table_scored_as_it_stands_has_the_labels_of_evaluate(
    trained: Path, server: ServerProcess, tmp_path: Path, engine: str
) -> None:
    """The bundle widens the table's ranges as training did, and the server's answers say what was judged."""
    out = tmp_path / "t.jsonl"
    where = ["--url", server.url] if engine == "server" else ["--repository", str(trained / "bundles")]
    words = ["score", str(trained / "clips" / "clips.csv"), "--column", "path=media", "--model", "audio_visual"]
    assert main([*words, *where, "--out", str(out), "-q"]) == 0
    rows = expected(trained, "audio_visual")
    scored = [json.loads(line) for line in out.read_text().splitlines()][-len(rows) :]
    assert [row["path"] for row in scored] == [row["path_audio"] for row in rows]
    assert [(row["start_s"], row["end_s"]) for row in scored] == [(0.2, 0.7)] * len(rows)
    assert [row["label"] for row in scored] == [row["predicted"] for row in rows]
    for found, row in zip(scored, rows, strict=True):
        for label in ("high", "low"):
            expected_p = float(row[f"probability_{label}"])
            assert found[f"probability_{label}"] == pytest.approx(expected_p, abs=1e-4)
    answer = predict(server, "audio_visual", *files_of(rows[0]))
    assert (answer["start_s"], answer["end_s"]) == pytest.approx((0.15, 0.65), abs=0.02)


def test_one_view_alone_is_still_an_answer(trained: Path, server: ServerProcess) -> None:
    row = expected(trained, "two_views")[0]
    answer = predict(server, "two_views", "--modality", f"front={row['path_front']}")
    assert answer["degraded"]
    assert (answer["modalities"]["rear"]["status"], answer["modalities"]["rear"]["reason"]) == ("absent", "not_sent")
    assert answer["modalities"]["front"]["status"] == "ok"


def test_flow_that_is_sent_answers_as_flow_that_is_computed(
    trained: Path, server: ServerProcess, tmp_path: Path
) -> None:
    row = expected(trained, "picture_flow")[0]
    flow = Flow(**FLOW)
    path = Path(row["path_flow"])
    start_s, end_s = float(row["start_s"]), float(row["end_s"])
    decoded = decode(DecodeRequest((flow,), {"flow": path}, 0.5, start_s, end_s, margin_s=MARGIN_S))
    quantised = decoded.tracks["flow"].row
    assert quantised is not None
    assert np.ptp(quantised[..., 0]) > 0
    np.save(
        tmp_path / "flow.npy", ((quantised.astype(np.float32) - 128.0) * (flow.bound_px / 127.0)).astype(np.float16)
    )
    media, *rest = files_of(row)
    same(predict(server, "picture_flow", media, *rest, "--modality", f"flow={tmp_path / 'flow.npy'}"), row)
