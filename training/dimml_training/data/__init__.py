"""Data loading, from a table of clips to batches: check, decode, cache and augment."""
