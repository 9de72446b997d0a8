"""Figures that several components compute or export alike."""
