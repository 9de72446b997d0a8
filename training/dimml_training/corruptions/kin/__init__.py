"""Kin of real damage: rows that a learned reliability may learn from, never scored and never seen by an encoder."""
