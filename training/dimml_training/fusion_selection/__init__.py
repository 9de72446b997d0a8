"""Certainty that means something: calibration, learned reliability, and the choice of a fusion on validation clips."""
