"""From a file to arrays: containers, tracks, time ranges, windows, and the signal check of what was decoded."""
