"""From a table of clips to batches: checked, decoded, cached, augmented."""
