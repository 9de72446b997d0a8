"""What an answer owes to each modality and to stretches of time, and damage to try it (docs/explaining.md)."""

from __future__ import annotations
