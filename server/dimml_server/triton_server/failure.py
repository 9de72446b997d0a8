"""Explanation, in one line, why a Triton server did not start or ended, found in its log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

#: Triton 2.51's log message for a model that does not load: groups (model, reason).
_MODEL_FAILURES: Final = (
    re.compile(r"failed to load '([^']+)' version \d+: (.*)"),
    re.compile(r"failed to load model '([^']+)': (.*)"),
    re.compile(r"Poll failed for model directory '([^']+)': (.*)"),
    re.compile(r"load failed for model '([^']+)': (?:version \d+ is at UNAVAILABLE state: )?(.*)"),
    re.compile(r"Failed to preinitialize Python stub: (?=.*'[^']*?/([^/']+)/\d+/model\.py')(.*)"),
)
#: After this message Triton waits for the model forever (seen with 2.51).
_STUCK: Final = "Failed to preinitialize Python stub: "
#: Triton's error code and the exception's name before a message, which mean nothing to a user.
_PREAMBLE: Final = re.compile(
    r"^(?:(?:Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown)(?: error)?|TritonModelException): "
)
_PORT: Final = re.compile(r"(?:Socket '[^']*'|address [^ ]*|port \d+)[^\"]*already in use", re.IGNORECASE)
#: Messages that a server without a GPU always logs.
NO_GPU: Final = re.compile(r"CUDA|CudaDriverHelper|pinned system memory")
_SHOWN: Final = 400


def explain(log: Sequence[str], exit_code: int) -> str:
    """Return the reason, for a person; ``log`` is the server's last lines, ``exit_code`` negative for a signal."""
    failures = dict(_model_failures(log))
    if failures:
        return "Triton cannot load " + "; ".join(f"{model}: {reason}" for model, reason in sorted(failures.items()))
    for line in log:
        if port := _PORT.search(line):
            return f"Triton cannot listen: {port[0]}"
    for line in log:
        if line.startswith("error: "):
            return f"Triton did not start: {_first_sentence(line.removeprefix('error: '))}"
    ended = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    said = [line for line in log if line.strip() and not NO_GPU.search(line)]
    return f"Triton {ended}" + (f"; it last said: {_first_sentence(said[-1])}" if said else "")


def is_stuck(log: Sequence[str]) -> bool:
    """Whether a starting server will neither become ready nor end."""
    return any(_STUCK in line for line in log)


def _model_failures(log: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in log:
        for pattern in _MODEL_FAILURES:
            if match := pattern.search(line):
                yield match[1], _first_sentence(match[2])
                break


def _first_sentence(text: str) -> str:
    # Inside quotes, Triton writes an exception's line breaks as \n, and its origin after the first one.
    text = text.split("\\n", 1)[0].strip().rstrip('";').strip()
    while (shorter := _PREAMBLE.sub("", text)) != text:
        text = shorter
    return text[:_SHOWN]
