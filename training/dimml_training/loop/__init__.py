"""A complete training, from a configuration to a run directory."""
