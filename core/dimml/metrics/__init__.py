"""Metrics that several components compute or export in the same way."""
