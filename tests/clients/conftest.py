"""What the tests of ``dimml score`` share."""

from __future__ import annotations

from support.forked_workers import forked_workers
from support.score_fixtures import mixed, tiny_repository

__all__ = ["forked_workers", "mixed", "tiny_repository"]
