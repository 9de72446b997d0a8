"""A shadow version: predictions compared beside the ones that are answered."""
