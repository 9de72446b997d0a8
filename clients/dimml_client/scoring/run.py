"""One run: from a listing to a whole table, continued where an earlier call of the same command ended."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from dimml.errors import ConfigurationError, DataError
from dimml_client.scoring import output
from dimml_client.scoring.aggregate import Aggregation, Aggregator
from dimml_client.scoring.engine import Engine
from dimml_client.scoring.identity import refuse_other_inputs, refuse_other_run, run_record
from dimml_client.scoring.inputs import Listing
from dimml_client.scoring.media import check_parts
from dimml_client.scoring.ordering import InOrder
from dimml_client.scoring.parts import Parts
from dimml_client.scoring.progress import ScoreProgress
from dimml_client.scoring.recording import Recording
from dimml_client.scoring.schema import table_schema
from dimml_client.scoring.stopping import StopRequest
from dimml_client.scoring.summary import Summary

_TABLE: Final = "table.tmp"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. ``complete`` is false where it was stopped; ``resumed_at`` is the first recording scored."""

    summary: Summary
    complete: bool
    recordings: int
    resumed_at: int
    seconds: float


def score_table(
    engine: Engine,
    listing: Listing,
    out: Path,
    settings: Mapping[str, Any],
    *,
    aggregation: Aggregation | None = None,
    quiet: bool = True,
    rows_per_file: int = output.ROWS_PER_FILE,
) -> Outcome:
    """Score all recordings with ``engine``, which is not entered yet, into ``out``.

    ``settings`` are what the rows depend on beside bundle and inputs: with others, an unfinished or finished table is
    refused. Raises ConfigurationError for that, DataError where the table cannot be written; whatever is whole by
    then stays, and the next call goes on from it.
    """
    bundle = engine.bundle
    check_parts(listing.own_files, bundle.modalities)
    schema = table_schema(bundle, listing.own_files, listing.labelled)
    record = run_record(bundle, {**settings, "aggregate": aggregation})
    if out.exists() or out.is_symlink():
        return _already_there(out, record, listing, bundle.modalities)
    with ExitStack() as stack:
        parts = Parts(out, schema)
        stack.callback(parts.close)
        there = parts.record
        if there is None:
            parts.begin(record, listing)
        else:
            refuse_other_run(there, record, parts.folder)
            refuse_other_inputs(parts.listing, listing, parts.folder)
            listing = parts.listing
        first, began = parts.next_index, time.monotonic()
        aggregator = None if aggregation is None else Aggregator(aggregation, bundle)
        try:
            with ScoreProgress(len(listing), first, quiet=quiet) as progress:
                if first:
                    progress.note(f"going on after {first} of {len(listing)} recordings")
                complete = first == len(listing) or _fill(engine, listing, parts, aggregator, progress)
            summary = Summary()
            if complete:
                summary = _finish(
                    parts,
                    out,
                    schema,
                    record=record,
                    listing=listing,
                    modalities=bundle.modalities,
                    rows_per_file=rows_per_file,
                )
            else:
                for batch in parts.batches():
                    summary.add_batch(batch, bundle.modalities)
        except (OSError, pa.ArrowException) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"cannot write {out}: {words}; {parts.next_index} of {len(listing)} recordings are safe in "
                f"{parts.folder}, and the same command goes on from there",
                field="--out",
            ) from error
    return Outcome(summary, complete, len(listing), first, time.monotonic() - began)


def _fill(
    engine: Engine, listing: Listing, parts: Parts, aggregator: Aggregator | None, progress: ScoreProgress
) -> bool:
    """Score what no part has; false where it was stopped before the end."""
    first = parts.next_index
    order = InOrder(first)
    seen = Summary()
    with ExitStack() as stack:
        stop = stack.enter_context(
            StopRequest(lambda: progress.note("finishing what is under way; once more to stop at once"))
        )

        def recordings() -> Iterator[Recording]:
            for recording in listing.recordings(first):
                if stop.asked:
                    return
                yield recording

        stack.enter_context(engine)
        scored = engine.score(recordings(), order.room)
        # Last in, first out: those who wait for room must go on before the engine waits for them.
        stack.callback(getattr(scored, "close", lambda: None))
        stack.callback(order.close)
        for one in scored:
            for row, last in order.take(one):
                parts.add(row)
                seen.add(row, engine.bundle.modalities)
                if aggregator is not None:
                    aggregator.add(row)
                if last:
                    if aggregator is not None:
                        parts.add(aggregator.take())
                    progress.recording_done(seen)
                    parts.done(order.index - 1)
        parts.commit(order.index)
    if order.index < len(listing) and not stop.asked:
        raise DataError(f"the engine gave no row for recording {order.index}; this is a bug")
    return order.index == len(listing)


def _finish(
    parts: Parts,
    out: Path,
    schema: pa.Schema,
    *,
    record: dict[str, Any],
    listing: Listing,
    modalities: tuple[str, ...],
    rows_per_file: int,
) -> Summary:
    """All parts as one table, put in its place in one step; then the parts go."""
    aside = parts.folder / _TABLE
    output.removed(aside)
    rows = parts.count()
    metadata = {**record, "inputs": {"recordings": len(listing), "sha256": _digest(listing)}, "rows": rows}
    sink = output.open_sink(aside, out, output.with_metadata(schema, metadata), rows, rows_per_file)
    summary = Summary()
    for batch in parts.batches():
        sink.write(batch.replace_schema_metadata(None))
        summary.add_batch(batch, modalities)
    sink.close()
    if out.suffix.lower() != ".parquet":
        note = parts.folder / "meta.tmp"
        note.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
        output.synced(note)
        note.replace(output.sidecar(out))
    aside.replace(out)
    output.synced(out.parent)
    parts.remove()
    return summary


def _already_there(out: Path, record: dict[str, Any], listing: Listing, modalities: tuple[str, ...]) -> Outcome:
    """The same run's whole table. Raises ConfigurationError where it is anything else."""
    there = output.read_metadata(out)
    if there is None:
        raise ConfigurationError(
            f"{out} is there and was not written by dimml score; remove it, or choose another --out", field="--out"
        )
    inputs = there.pop("inputs", None)
    there.pop("rows", None)
    refuse_other_run(there, record, out)
    if inputs != {"recordings": len(listing), "sha256": _digest(listing)}:
        raise ConfigurationError(
            f"{out} holds the rows of other inputs; remove it, or choose another --out", field="--out"
        )
    summary = Summary()
    for batch in output.read_batches(out):
        summary.add_batch(batch, modalities)
    return Outcome(summary, complete=True, recordings=len(listing), resumed_at=len(listing), seconds=0.0)


def _digest(listing: Listing) -> str:
    """SHA-256 over every entry of the listing."""
    found = hashlib.sha256()
    for batch in listing.table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            found.update(json.dumps(row, sort_keys=True).encode())
    return found.hexdigest()
