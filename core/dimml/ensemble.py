"""One prediction: run all encoders concurrently, each under its own deadline, then fuse the modalities that answered.

This coroutine is the same beneath the embedded server, the batch scorer and Triton's entry model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.engine import Encoded, Engine, EngineError, Together
from dimml.errors import DeadlineExceededError, DimmlError, UnavailableError, UnusableMediaError
from dimml.fusion import FloatArray, Fused, softmax
from dimml.signal_check import no_signal
from dimml.spans import NO_SPANS, NoSpans, Spans, bundle_attributes
from dimml.status import OK, ModalityStatus, Reason, Status, describe_statuses

logger = logging.getLogger(__name__)

#: Reserved from the request's time for fusing and answering.
FUSION_RESERVE_S = 0.05


@dataclass(frozen=True)
class Rows:
    """A batch of B inputs.

    ``statuses`` has B entries for every modality of the bundle; ``tensors`` has ``[B, *shape]`` for each modality of
    which at least one row is ``ok``. Rows that are not ok may hold anything.
    """

    tensors: Mapping[str, npt.NDArray[Any]]
    statuses: Mapping[str, Sequence[ModalityStatus]]


@dataclass(frozen=True)
class EnsembleResult:
    """Result of an ensemble run, by row.

    ``logits`` and ``features`` are each modality's own, zero where it is not ok.
    """

    fused: Fused
    logits: Mapping[str, FloatArray]
    statuses: Mapping[str, Sequence[ModalityStatus]]
    encode_s: Mapping[str, float]
    fuse_s: float
    features: Mapping[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def own(self) -> Mapping[str, FloatArray]:
        """Each modality's own distribution ``[B, C]``, uniform where it is not ok."""
        return dict(zip(self.logits, softmax(np.array(list(self.logits.values()))), strict=True))


def judged(bundle: Bundle, tensors: Mapping[str, npt.NDArray[Any]], batch: int) -> Rows:
    """Make rows from bare tensors: modalities without one are ``not_sent``, rows without signal are unusable."""
    statuses: dict[str, list[ModalityStatus]] = {}
    for modality in bundle.modalities:
        tensor = tensors.get(modality.name)
        if tensor is None:
            statuses[modality.name] = [ModalityStatus.because(Reason.NOT_SENT)] * batch
            continue
        reasons = [no_signal(modality, row, bundle.quality) for row in tensor]
        statuses[modality.name] = [OK if reason is None else ModalityStatus.because(reason) for reason in reasons]
    return Rows(tensors, statuses)


async def run(
    engine: Engine,
    bundle: Bundle,
    rows: Rows,
    *,
    timeout_s: float,
    deadlines_s: Mapping[str, float] | None = None,
    spans: Spans = NO_SPANS,
) -> EnsembleResult:
    """Encode and fuse. A modality that raises, is late or gives a non-finite number is left out, with a status.

    ``timeout_s`` bounds the whole call; ``deadlines_s`` overrides the bundle's per-modality deadlines; every encoder
    run and the fusion is recorded as one of ``spans``. A row without any usable modality stays in the result with zero
    weights (``no_answer`` gives the error for the caller). Raises UnavailableError or DeadlineExceededError only when
    fusion itself fails or is late.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    statuses = {name: list(column) for name, column in rows.statuses.items()}
    batch = len(next(iter(statuses.values())))
    began, now = perf_counter(), loop.time()
    due = {
        name: min(
            now + (deadlines_s or {}).get(name, bundle.encoder(name).deadline_ms / 1000.0), end - FUSION_RESERVE_S
        )
        for name in statuses
    }
    # Where calls are traced, each has its span.
    together = _start_together(engine, bundle, rows, batch) if isinstance(spans, NoSpans) else None
    if together is not None:
        whole = await _whole_result(together, bundle, rows, due, end)
        if whole is not None:
            return whole

    async def encode(name: str) -> tuple[Encoded, float]:
        usable = [i for i, status in enumerate(statuses[name]) if status.ok]
        if not usable:
            return _no_output(bundle, name, batch), 0.0
        attributes = {**bundle_attributes(bundle), "dimml.modality": name, "dimml.rows": len(usable)}
        with spans.span(f"encode {name}", attributes) as span:
            encoded = await attempt(name, usable)
            worst = next((statuses[name][row] for row in usable if not statuses[name][row].ok), OK)
            span.set("dimml.status", worst.status.value)
            if worst.reason is not None:
                span.set("dimml.reason", worst.reason.value)
                span.fail(worst.reason.value)
        # Those that run together have been waited for in turn: their own time is what counts.
        seconds = perf_counter() - began
        return encoded, seconds if together is None else together.encode_s.get(name, seconds)

    async def attempt(name: str, usable: Sequence[int]) -> Encoded:
        """Run the encoder on the usable rows; all rows of its output, zeros in those that have none."""
        column, tensor = statuses[name], rows.tensors[name]
        try:
            async with asyncio.timeout_at(due[name]):
                if together is not None:
                    output = await together.encoded(name)
                else:
                    output = await engine.encode(bundle, name, tensor if len(usable) == batch else tensor[usable])
        except TimeoutError:
            failure = Reason.DEADLINE
        except EngineError as error:
            logger.warning("encoder %s: %s", bundle.encoder_model(name), error)
            failure = error.reason
        except Exception:
            logger.exception("encoder %s", bundle.encoder_model(name))
            failure = Reason.ENCODER_ERROR
        else:
            if len(usable) == batch and np.isfinite(output.features).all() and np.isfinite(output.logits).all():
                return output
            encoded = _no_output(bundle, name, batch)
            finite = np.isfinite(np.concatenate([output.features, output.logits], axis=1)).all(axis=1)
            for position, row in enumerate(usable):
                if finite[position]:
                    encoded.features[row] = output.features[position]
                    encoded.logits[row] = output.logits[position]
                else:
                    column[row] = ModalityStatus.because(Reason.NON_FINITE)
            return encoded
        for row in usable:
            column[row] = ModalityStatus.because(failure)
        return _no_output(bundle, name, batch)

    names = [modality.name for modality in bundle.modalities]
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(encode(name)) for name in names}
    encoded = {name: task.result()[0] for name, task in tasks.items()}
    logits = {name: encoded[name].logits for name in names}
    features = {name: encoded[name].features for name in names}
    present_BM = np.array([[statuses[name][row].ok for name in names] for row in range(batch)], dtype=np.bool_)
    began_fusing = perf_counter()
    if not present_BM.any():
        # Nothing to fuse. Where the models run elsewhere, the fusion may be as unreachable as the encoders that failed,
        # and the answer should report their statuses instead.
        return EnsembleResult(
            fused=_nothing(batch, bundle),
            logits=logits,
            statuses=statuses,
            encode_s={name: task.result()[1] for name, task in tasks.items()},
            fuse_s=0.0,
            features=features,
        )
    # Never less than its reserve: where a late encoder used the time up on a busy machine, an answer that is slightly
    # late is worth more than none.
    latest = max(end, loop.time() + FUSION_RESERVE_S)
    with spans.span("fuse", {**bundle_attributes(bundle), "dimml.rows": batch}), _fusing(bundle):
        async with asyncio.timeout_at(latest):
            fused = await engine.fuse(bundle, features, logits, present_BM)
    return EnsembleResult(
        fused=fused,
        logits=logits,
        statuses=statuses,
        encode_s={name: task.result()[1] for name, task in tasks.items()},
        fuse_s=perf_counter() - began_fusing,
        features=features,
    )


def _start_together(engine: Engine, bundle: Bundle, rows: Rows, batch: int) -> Together | None:
    """Start all encoders of which every row is to be had, if the engine can and no modality is missing in part."""
    start: Callable[..., Together | None] | None = getattr(engine, "together", None)  # ``EncodesTogether``
    usable = {m.name: sum(status.ok for status in rows.statuses[m.name]) for m in bundle.modalities}
    if start is None or not any(usable.values()) or any(0 < count < batch for count in usable.values()):
        return None
    return start(
        bundle,
        {name: rows.tensors[name] for name, count in usable.items() if count},
        {name: _no_output(bundle, name, batch) for name, count in usable.items() if not count},
        np.array([[count > 0 for count in usable.values()]] * batch, dtype=np.bool_),
    )


async def _whole_result(
    together: Together, bundle: Bundle, rows: Rows, due: Mapping[str, float], end: float
) -> EnsembleResult | None:
    """Await encoders and fusion at once; None if an encoder failed or is late. Raises as ``run`` does."""
    until = min(due[name] for name, column in rows.statuses.items() if column[0].ok)
    with _fusing(bundle):
        fused = await together.fused(until, max(end, until + FUSION_RESERVE_S))
    if fused is None:
        return None
    return EnsembleResult(
        fused=fused,
        logits={modality.name: together.outputs[modality.name].logits for modality in bundle.modalities},
        statuses=rows.statuses,
        encode_s={modality.name: together.encode_s.get(modality.name, 0.0) for modality in bundle.modalities},
        fuse_s=together.fuse_s,
        features={modality.name: together.outputs[modality.name].features for modality in bundle.modalities},
    )


@contextmanager
def _fusing(bundle: Bundle) -> Iterator[None]:
    """Turn a failure of the fusion into the error for the caller."""
    try:
        yield
    except TimeoutError as error:
        raise DeadlineExceededError("the request's time ran out before fusion") from error
    except EngineError as error:
        logger.warning("fusion %s: %s", bundle.fusion_model, error)
        raise UnavailableError("fusion failed") from error


def _no_output(bundle: Bundle, modality: str, batch: int) -> Encoded:
    """Build what stands for an encoder's output in rows that have none."""
    return Encoded(
        features=np.zeros((batch, bundle.encoder(modality).features), np.float32),
        logits=np.zeros((batch, bundle.classes), np.float32),
    )


def _nothing(batch: int, bundle: Bundle) -> Fused:
    """Build what the fusion graph returns for rows in which no modality is present."""
    classes, heads = bundle.classes, len(bundle.heads)
    return Fused(
        probabilities_BC=np.full((batch, classes), 1.0 / classes, np.float32),
        logits_BC=np.zeros((batch, classes), np.float32),
        certainty_BH=np.zeros((batch, heads), np.float32),
        weights_BH=np.zeros((batch, heads), np.float32),
    )


def no_answer(
    statuses: Mapping[str, ModalityStatus], inputs: Mapping[str, npt.NDArray[Any]] | None = None
) -> DimmlError | None:
    """Return the error for one row with these final statuses, or None if at least one modality answered.

    If none reached an encoder, what was sent is at fault: UnusableMediaError. So it is if NaN or infinity stands in the
    input of one that did (``inputs``, the row's tensors ``[*shape]``), whatever else happened: nothing should be sent
    again as it is. Else, of those that reached one: if any failed, UnavailableError; if all were late,
    DeadlineExceededError.
    """
    if any(status.ok for status in statuses.values()):
        return None
    listed = describe_statuses(statuses)
    reached = {status.status for status in statuses.values()}
    not_finite = [
        name
        for name, status in statuses.items()
        if status.status in (Status.FAILED, Status.TIMEOUT) and _is_not_finite((inputs or {}).get(name))
    ]
    if not_finite:
        return UnusableMediaError(
            f"{' and '.join(not_finite)}: the input holds NaN or infinity, send finite numbers; {listed}",
            field=not_finite[0],
            statuses=statuses,
        )
    if Status.FAILED in reached:
        return UnavailableError(f"no encoder answered: {listed}", statuses=statuses)
    if Status.TIMEOUT in reached:
        return DeadlineExceededError(f"every encoder was late: {listed}", statuses=statuses)
    return UnusableMediaError(f"no requested modality is usable: {listed}", statuses=statuses)


def _is_not_finite(tensor: npt.NDArray[Any] | None) -> bool:
    return tensor is not None and not bool(np.isfinite(tensor).all())


def no_answer_at_all(
    statuses: Mapping[str, Sequence[ModalityStatus]], tensors: Mapping[str, npt.NDArray[Any]] | None = None
) -> DimmlError | None:
    """Return the first row's error if no row of a batch has an answer, else None.

    ``statuses`` are columns, ``tensors`` the inputs ``[B, *shape]`` by modality (``no_answer``).
    """
    if any(status.ok for column in statuses.values() for status in column):
        return None
    return no_answer(
        {name: column[0] for name, column in statuses.items()},
        {name: tensor[0] for name, tensor in (tensors or {}).items()},
    )
