"""One run: scores a listing into a complete table, resuming where an earlier call of the same command ended."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from dimml.errors import ConfigurationError, DataError
from dimml.system.files import StrPath, sync_to_disk, write_atomically
from dimml_client.scoring.engines.decode_request import check_parts
from dimml_client.scoring.engines.protocol import Engine
from dimml_client.scoring.inputs.listing import Listing
from dimml_client.scoring.inputs.locations import NoRoomError
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.run.aggregate import Aggregation, Aggregator
from dimml_client.scoring.run.checkpoint import Checkpoint, folder_of, remove_checkpoint
from dimml_client.scoring.run.fingerprint import refuse_other_inputs, refuse_other_run, run_record
from dimml_client.scoring.run.progress import ScoreProgress
from dimml_client.scoring.run.reorder_buffer import ReorderBuffer
from dimml_client.scoring.run.signals import StopRequest
from dimml_client.scoring.run.summary import Summary
from dimml_client.scoring.table import formats
from dimml_client.scoring.table.rows import Row
from dimml_client.scoring.table.schema import table_schema

_TABLE: Final = "table.tmp"


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: ``done`` recordings have their rows, those before ``first`` from an earlier call."""

    summary: Summary
    recordings: int
    first: int
    done: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the run finished; False if it was stopped."""
        return self.done == self.recordings


def score_table(
    engine: Engine,
    listing: Listing,
    out: StrPath,
    *,
    aggregation: Aggregation | None = None,
    quiet: bool = True,
    rows_per_file: int = formats.ROWS_PER_FILE,
) -> RunResult:
    """Score all recordings with ``engine``, which is not entered yet, into ``out``; from the main thread.

    Raises ConfigurationError if ``out``, finished or not, belongs to another run, and DataError if it cannot be
    written; complete parts stay, and the next call resumes from them.
    """
    out = Path(out)
    bundle = engine.bundle
    check_parts(listing.own_files, bundle.modalities)
    schema = table_schema(bundle, listing.own_files, listing.labelled)
    record = run_record(bundle, {**engine.settings, "aggregate": aggregation})
    if out.exists() or out.is_symlink():
        return _already_there(out, record, listing)
    with ExitStack() as stack:
        try:
            checkpoint = stack.enter_context(closing(Checkpoint(out, schema)))
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror}: {error.filename}", field="--out") from error
        if out.exists():
            # Another process finished it since the check.
            checkpoint.remove()
            return _already_there(out, record, listing)
        run = _Run(engine, out, checkpoint, record, aggregation, quiet=quiet, rows_per_file=rows_per_file)
        try:
            return run.go(listing)
        except (OSError, pa.ArrowException) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise DataError(f"cannot write {out}: {words}; {_safe(checkpoint, listing)}", field="--out") from error
        except NoRoomError as error:
            raise DataError(f"{error}; {_safe(checkpoint, listing)}", field="TMPDIR") from error


def _safe(checkpoint: Checkpoint, listing: Listing) -> str:
    return (
        f"{checkpoint.next_index} of {len(listing)} recordings are safe in {checkpoint.folder}, and the same command "
        "goes on from there"
    )


class _Run:
    """One call of ``score_table`` whose checkpoint is open."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        checkpoint: Checkpoint,
        record: dict[str, Any],
        aggregation: Aggregation | None,
        *,
        quiet: bool,
        rows_per_file: int,
    ) -> None:
        self._engine = engine
        self._out = out
        self._checkpoint = checkpoint
        self._record = record
        self._aggregator = None if aggregation is None else Aggregator(aggregation, engine.bundle)
        self._quiet = quiet
        self._rows_per_file = rows_per_file

    def go(self, listing: Listing) -> RunResult:
        """Run until done or stopped. Raises OSError and ArrowException if something cannot be written."""
        checkpoint = self._checkpoint
        there = checkpoint.record
        if there is None:
            checkpoint.begin(self._record, listing)
        else:
            refuse_other_run(there, self._record, checkpoint.folder)
            refuse_other_inputs(checkpoint.listing, listing, checkpoint.folder)
            listing = checkpoint.listing
        first, began = checkpoint.next_index, time.monotonic()
        if first < len(listing):
            with ScoreProgress(len(listing), first, quiet=self._quiet) as progress:
                if first:
                    progress.note(f"going on after {first} of {len(listing)} recordings")
                self._fill(listing, progress)
        summary = Summary()
        for batch in checkpoint.batches():
            summary.add_batch(batch, self._engine.bundle.modalities)
        done = checkpoint.next_index
        if done == len(listing):
            self._finish({**self._record, **_about(listing), "summary": summary.as_dict()})
        return RunResult(summary, len(listing), first, done, time.monotonic() - began)

    def _fill(self, listing: Listing, progress: ScoreProgress) -> None:
        """Score what no part has, up to the end or until stopped."""
        checkpoint, engine = self._checkpoint, self._engine
        order = ReorderBuffer(checkpoint.next_index)
        seen = Summary()
        with StopRequest(quiet=self._quiet) as stop:

            def recordings() -> Iterator[Recording]:
                for recording in listing.recordings(order.index):
                    if stop.asked:
                        return
                    yield recording

            with engine, closing(engine.score(recordings(), order.room)) as scored:
                for row, last in (given for one in _of_engine(scored) for given in order.take(one)):
                    self._add(row)
                    seen.add(row, engine.bundle.modalities)
                    if not last:
                        continue
                    if self._aggregator is not None:
                        checkpoint.add(self._aggregator.take())
                    progress.recording_done(seen)
                    checkpoint.done(order.index - 1)
                    if stop.asked and engine.takes_all_at_once:
                        break
            checkpoint.commit(order.index)
        if order.index < len(listing) and not stop.asked:
            raise RuntimeError(f"recording {order.index} was given no row")

    def _add(self, row: Row) -> None:
        self._checkpoint.add(row)
        if self._aggregator is not None:
            self._aggregator.add(row)

    def _finish(self, metadata: dict[str, Any]) -> None:
        """Write all parts as one table, put it in place in one step, then remove the checkpoint."""
        checkpoint, out = self._checkpoint, self._out
        temporary = checkpoint.folder / _TABLE
        formats.removed(temporary)
        schema = formats.with_metadata(checkpoint.schema, metadata)
        sink = formats.open_sink(temporary, out, schema, checkpoint.count(), self._rows_per_file)
        for batch in checkpoint.batches():
            sink.write(batch.replace_schema_metadata(None))
        sink.close()
        if out.suffix.lower() != ".parquet":
            text = json.dumps(metadata, indent=1) + "\n"
            write_atomically(
                formats.sidecar(out), text.encode(), durable=True, temporary=checkpoint.folder / "meta.tmp"
            )
        temporary.replace(out)
        sync_to_disk(out.parent)
        checkpoint.remove()


def _of_engine(scored: Iterator[Scored]) -> Iterator[Scored]:
    """Yield the engine's rows; its own errors of the system are not taken for the table's."""
    try:
        yield from scored
    except (OSError, pa.ArrowException) as error:
        raise RuntimeError(f"the engine failed: {type(error).__name__}: {error}") from error


def _already_there(out: Path, record: dict[str, Any], listing: Listing) -> RunResult:
    """Return the result of the same run's finished table. Raises ConfigurationError if the file is anything else."""
    there = formats.read_metadata(out)
    if there is None:
        raise ConfigurationError(
            f"{out} is there and was not written by dimml score; remove it, or choose another --out", field="--out"
        )
    summary = Summary.from_dict(there.pop("summary"))
    inputs = there.pop("inputs")
    refuse_other_run(there, record, out)
    if inputs != _about(listing)["inputs"]:
        raise ConfigurationError(
            f"{out} holds the rows of other inputs; remove it, or choose another --out", field="--out"
        )
    # A kill between the table's last step and this one leaves a checkpoint that is not needed any more.
    remove_checkpoint(folder_of(out))
    return RunResult(summary, len(listing), first=len(listing), done=len(listing), seconds=0.0)


def _about(listing: Listing) -> dict[str, Any]:
    """Return the number of recordings, and the SHA-256 over every entry of the listing."""
    found = hashlib.sha256()
    for batch in listing.table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            found.update(json.dumps(row, sort_keys=True).encode())
    return {"inputs": {"recordings": len(listing), "sha256": found.hexdigest()}}
