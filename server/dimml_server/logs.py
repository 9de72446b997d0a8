"""Logging of the ``dimml serve`` process: one line per event on stderr, stdout left to the ready line."""

from __future__ import annotations

import logging
import time


def configure_logging(level: str) -> None:
    """Set up the root logger. Called once, by the command."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Theirs say the same as ours, or things of no interest to an operator.
    for noisy in ("uvicorn", "asyncio", "python_multipart"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
