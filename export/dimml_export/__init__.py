"""From a training run to a checked bundle in a Triton model repository."""
