"""Tables of ``dimml score``: every kind of file and engine, whole recordings and windows, row by row."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from checkouts.checkout import REPOSITORY, SAMPLES, Checkout
from checkouts.commands import shown
from checkouts.comparison import without_durations, without_noise

#: Of numbers in tables: which recordings share a batch depends on their times, and moves last bits (4e-6 was seen).
TOLERANCE = 1e-5
_MANIFEST = [f"{SAMPLES}/samples.csv", "--column", "path=file"]
_WINDOWS = ["--window", "1.2", "--stride", "0.6"]


def tables(checkout: Checkout) -> dict[str, Any]:
    """Rows, schema, what is written beside, and what is printed, for each way of scoring."""
    found: dict[str, Any] = {}
    local = ["--repository", REPOSITORY, "--cores", "1"]
    for name, words in {
        "folder.parquet": [SAMPLES, *local],
        "folder.jsonl": [SAMPLES, *local],
        "folder.csv": [SAMPLES, *local],
        "manifest.parquet": [*_MANIFEST, *local, "--report", "manifest.html"],
        "windows.parquet": [SAMPLES, *_WINDOWS, *local],
        "mean.csv": [SAMPLES, *_WINDOWS, "--aggregate", "mean", *local],
        "vote.jsonl": [SAMPLES, *_WINDOWS, "--aggregate", "vote", *local],
        "max.jsonl": [*_MANIFEST, *_WINDOWS, "--aggregate", "max", *local],
        "degraded.jsonl": [SAMPLES, *local, "--fail-on", "degraded", "--quiet"],
    }.items():
        found |= _scored(checkout, name, *words)
    found |= _scored(checkout, "folder.parquet", SAMPLES, *local, again=" once more")
    found["report of manifest.parquet"] = without_durations((checkout.folder / "manifest.html").read_text())
    found["dimml plot"] = shown(checkout, "plot", "windows.parquet", "--id", f"{SAMPLES}/long.mp4", "--out", "plot.svg")
    found["picture of dimml plot"] = without_durations((checkout.folder / "plot.svg").read_text())
    with checkout.server() as server:
        for transport, url in (("http", server.url), ("grpc", f"grpc://{server.grpc}")):
            found |= _scored(checkout, f"by_{transport}.parquet", *_MANIFEST, "--url", url, "--in-flight", "1")
    return found


def hand_over(before: Checkout, after: Checkout) -> None:
    """Put a finished table of the first checkout in the place of the second one's."""
    shutil.copy2(before.folder / "folder.parquet", after.folder / "folder.parquet")


def continued(checkout: Checkout) -> dict[str, Any]:
    """The same scoring again where a finished table of the first checkout lies: all is found done."""
    local = ["--repository", REPOSITORY, "--cores", "1"]
    return _scored(checkout, "folder.parquet", SAMPLES, *local, again=" of the first, gone on with")


def _scored(checkout: Checkout, out: str, *words: str, again: str = "") -> dict[str, Any]:
    printed = shown(checkout, "score", *words, "--out", out, *([] if "--quiet" in words else ["--json"]))
    table = checkout.folder / out
    beside = sorted(path.name for path in checkout.folder.glob(f"{out}*"))
    found = {f"dimml score {out}{again}": printed, f"files of {out}{again}": beside}
    if table.exists():
        found[f"table {out}{again}"] = without_noise(_read(table))
    document = table.with_name(f"{out}.meta.json")
    if document.exists():
        found[f"notes of {out}{again}"] = without_noise(json.loads(document.read_text()))
    return found


def _read(table: Path) -> dict[str, Any]:
    """Rows, and of Parquet the schema and what stands in the file's metadata."""
    if table.suffix == ".parquet":
        content = pq.read_table(table)
        metadata = {key.decode(): value.decode() for key, value in (content.schema.metadata or {}).items()}
        notes = {key: json.loads(value) if value[:1] == "{" else value for key, value in metadata.items()}
        return {"rows": content.to_pylist(), "schema": [str(column) for column in content.schema], "metadata": notes}
    if table.suffix == ".jsonl":
        return {"rows": [json.loads(line) for line in table.read_text().splitlines()]}
    with table.open(newline="") as file:
        return {"rows": [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
