"""Scoring the sealed final families once: the seal, the log, the cells, and the figures they are judged by."""
