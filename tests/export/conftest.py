"""What the tests of exports share."""

from __future__ import annotations

from support.exporting import operators_made_once

__all__ = ["operators_made_once"]
