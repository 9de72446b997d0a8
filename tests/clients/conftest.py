"""What the tests of ``dimml score`` share."""

from __future__ import annotations

from support.score_fixtures import mixed, tiny_repository

__all__ = ["mixed", "tiny_repository"]
