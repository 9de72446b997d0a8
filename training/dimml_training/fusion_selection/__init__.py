"""Choice of a fusion on validation clips: calibration of the heads, learned reliability, search of candidates."""
