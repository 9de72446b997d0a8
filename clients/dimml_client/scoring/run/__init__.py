"""One run over a list of recordings: ordered, checkpointed, resumable."""
