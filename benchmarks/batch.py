"""Rate of `dimml score`'s local engine against the machine's limit, and against one process that does all by itself.

    python benchmarks/batch.py MANIFEST --repository MODELS --recordings 300 --repeats 3

The limit is the best of a plain script, with the same decode and model calls, over its own batch sizes: one process
per core, each decoding and encoding in turn, with one thread; nothing is written, nothing can go wrong. The loop is
the same with one process and batches of one. All are measured in turn, in one run; medians. Start-up is not counted.
Beside the clock stand the processor's seconds, of this process and all below it, which other work on the machine
hardly touches: with all cores busy, a rate is their number divided by these.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, PRESENT, features_input, logits_input
from dimml.media import decode
from dimml.media.types import MediaLimits
from dimml.repository import load_bundle, only_bundle
from dimml.system.cores import usable_cores
from dimml.system.outbound import import_quietly
from dimml_client.scoring.engines.decode_request import decode_request, parts_at_hand
from dimml_client.scoring.engines.local import LocalEngine
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.recording import Recording
from dimml_client.scoring.run.reorder_buffer import ReorderBuffer
from dimml_client.scoring.table.formats import ParquetSink
from dimml_client.scoring.table.schema import table_schema

_STATE: dict[str, Any] = {}


def prepare(repository: Path, bundle: Bundle) -> None:
    """Sessions of one process, as one would write them by hand."""
    ort = import_quietly("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    names = [bundle.encoder_model(m.name) for m in bundle.modalities]
    _STATE["encoders"] = [ort.InferenceSession(bundle.model_file(repository, name), options) for name in names]
    _STATE["fusion"] = ort.InferenceSession(bundle.model_file(repository, bundle.fusion_model), options)
    _STATE["bundle"] = bundle


def plain(recordings: list[Recording]) -> list[int]:
    """Decode a batch, run the encoders and the fusion; the classes that win. All modalities must be there."""
    bundle: Bundle = _STATE["bundle"]
    rows: dict[str, list[Any]] = {m.name: [] for m in bundle.modalities}
    for recording in recordings:
        with parts_at_hand(recording, MediaLimits().max_bytes) as parts:
            decoded = decode(decode_request(bundle, recording, parts, MediaLimits()))
        for name, track in decoded.tracks.items():
            rows[name].append(track.row)
    feeds: dict[str, Any] = {PRESENT: np.ones((len(recordings), len(bundle.modalities)), np.bool_)}
    for session, modality in zip(_STATE["encoders"], bundle.modalities, strict=True):
        outputs = session.run([FEATURES, LOGITS], {modality.tensor: np.stack(rows[modality.name])})
        feeds[features_input(modality.name)], feeds[logits_input(modality.name)] = outputs
    probabilities = _STATE["fusion"].run(["PROBABILITIES"], feeds)[0]
    return [int(best) for best in probabilities.argmax(axis=1)]


def processor_s() -> float:
    """Of this process and all below it, so far."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces; state and parent follow it, user and system time later.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(ticks[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.repository, only_bundle(arguments.repository))
    listing = list_inputs([arguments.manifest], {}, None)
    recordings = list(listing.recordings())[: arguments.recordings]
    cores = usable_cores()
    seconds: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}

    def now() -> tuple[float, float]:
        return time.perf_counter(), processor_s()

    def note(name: str, began: tuple[float, float]) -> None:
        clock_s, cpu_s = now()
        seconds.setdefault(name, []).append(clock_s - began[0])
        processor.setdefault(name, []).append(cpu_s - began[1])

    prepare(arguments.repository, bundle)
    spawn = multiprocessing.get_context("spawn")
    schema = table_schema(LocalEngine(arguments.repository, cores=cores).bundle, listing.own_files, listing.labelled)
    with (
        spawn.Pool(cores, prepare, (arguments.repository, bundle)) as pool,
        LocalEngine(arguments.repository, cores=cores) as engine,
        tempfile.TemporaryDirectory() as folder,
    ):
        pool.map(plain, [recordings[:2]] * cores)
        for repeat in range(arguments.repeats):
            for batch in arguments.batches:
                chunks = [recordings[i : i + batch] for i in range(0, len(recordings), batch)]
                began = now()
                wanted = [best for bests in pool.imap(plain, chunks) for best in bests]
                note(f"plain, {cores} processes, batch {batch}", began)
            began = now()
            order, rows = ReorderBuffer(0), []
            for scored in engine.score(recordings, order.room):
                rows += [row for row, _ in order.take(scored)]
            sink = ParquetSink(Path(folder) / f"{repeat}.parquet", schema)
            sink.write(pa.RecordBatch.from_pylist(rows, schema))
            sink.close()
            note("dimml score, local", began)
            assert [row["label"] for row in rows] == [bundle.labels[best] for best in wanted]
            began = now()
            for recording in recordings:
                plain([recording])
            note("one process, one thread", began)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    cpu = {name: statistics.median(found) for name, found in processor.items()}
    for name, median in medians.items():
        print(
            f"{name:32} {len(recordings) / median:7.1f} recordings/s   {[round(s, 2) for s in seconds[name]]} s, "
            f"{1000.0 * cpu[name] / len(recordings):.1f} ms of a processor each"
        )
    for what, found in (("by the clock", medians), ("by the processor", cpu)):
        limit = min(median for name, median in found.items() if name.startswith("plain"))
        print(f"of the machine's limit, {what}: {limit / found['dimml score, local']:.3f}")
    print(f"times the loop, by the clock: {medians['one process, one thread'] / medians['dimml score, local']:.2f}")


if __name__ == "__main__":
    main()
