"""Export of a training run as a checked bundle in a Triton model repository."""
