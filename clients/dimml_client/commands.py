"""Subcommands of ``dimml`` that this component brings; heavy imports stand inside the functions."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
