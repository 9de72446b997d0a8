"""Heads evaluated on a split, and the metrics of their answers."""
