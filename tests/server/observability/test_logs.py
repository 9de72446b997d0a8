"""Forms of log lines: whatever is in a message stays within its line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dimml_server.observability.access_log import AccessLine
from dimml_server.observability.logs import JsonFormatter, TextFormatter
from dimml_server.observability.request_context import RequestContext, record_code, record_statuses
from support.tiny_bundle import make_tiny_bundle

FORGED = "x\n2026-01-01T00:00:00.000Z ERROR forged\r\x1b[2J\x85\u2028é"


@contextmanager
def logger(formatter: logging.Formatter) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    it = logging.Logger("test")
    it.addHandler(handler)
    yield it, out


def fail() -> None:
    raise ValueError(FORGED)


def test_text_neither_breaks_a_line_nor_lets_a_traceback_pass_for_one() -> None:
    with logger(TextFormatter()) as (log, out):
        log.info("said %s", FORGED)
        try:
            fail()
        except ValueError:
            log.exception("broke")
    first, second, *traceback = out.getvalue().splitlines()
    assert first.endswith(r"INFO test: said x\n2026-01-01T00:00:00.000Z ERROR forged\r\x1b[2J\x85\u2028é")
    assert second.endswith("ERROR test: broke")
    assert len(traceback) > 3
    assert all(line.startswith("    ") for line in traceback)
    assert "\x1b" not in out.getvalue()


def test_json_is_a_line_of_ascii_that_gives_the_text_back() -> None:
    with logger(JsonFormatter()) as (log, out):
        log.info("said %s", FORGED)
        try:
            fail()
        except ValueError:
            log.exception("broke")
    assert out.getvalue().isascii()
    said, broke = (json.loads(line) for line in out.getvalue().splitlines())
    assert (said["level"], said["logger"], said["message"]) == ("info", "test", f"said {FORGED}")
    assert f"ValueError: {FORGED}" in broke["exception"]


def test_a_line_of_a_request_has_its_id_in_either_form() -> None:
    request_context = RequestContext("r-1", "http", "GET", "/", "127.0.0.1", trace_id="ab" * 16)
    with logger(TextFormatter()) as (log, out), request_context.current():
        log.info("said")
    assert out.getvalue().endswith(f"said request_id=r-1 trace_id={'ab' * 16}\n")
    with logger(JsonFormatter()) as (log, out), request_context.current():
        log.info("said")
    line = json.loads(out.getvalue())
    assert (line["request_id"], line["trace_id"]) == ("r-1", "ab" * 16)


@pytest.mark.parametrize("target", ["/a b request_id=forged", "/a\nb", "/a\u2028b"])
def test_no_path_begins_a_field_of_a_text_line(target: str) -> None:
    line = str(AccessLine(RequestContext("r-1", "http", "GET", target, "127.0.0.1", status=404, code="not_found")))
    words = line.split()
    assert (words[0], words[2:4]) == ("GET", ["404", "not_found"])
    assert [word for word in words if word.startswith("request_id=")] == ["request_id=r-1"]
    assert line.isprintable()


def test_a_path_is_cut() -> None:
    assert len(AccessLine(RequestContext("r", "http", "GET", "/" * 5000, "")).fields["path"]) == 512


def test_statuses_are_those_of_the_bundle_that_answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    from dimml.status import OK, ModalityStatus, Reason
    from dimml_server.observability.metrics import Metrics

    bundle = make_tiny_bundle(tmp_path_factory.mktemp("one"))
    other = make_tiny_bundle(tmp_path_factory.mktemp("two"), name="other")
    silent = ModalityStatus.because(Reason.SILENT)
    request_context = RequestContext("r-1", "grpc", "ModelInfer", "tiny", "")
    with request_context.current(), Metrics().request("grpc") as record:
        record.model, record.version = bundle.name, str(bundle.version)
        record_statuses(bundle, {"audio": [OK, silent, OK, OK], "visual": [OK] * 4})
        record_statuses(other, {"audio": [silent]})
    assert request_context.modalities == {"audio": "ok=3,unusable:silent=1", "visual": "ok"}
    record_code("elsewhere")  # No request is current: nothing to note it on.
    assert request_context.outcome == ""
