"""Encoders in reduced precision: which layers, from which clips, at what cost, and when not."""
