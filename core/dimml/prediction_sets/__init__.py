"""Prediction sets: thresholds in a manifest, and the set of each answer with whether it abstains."""
