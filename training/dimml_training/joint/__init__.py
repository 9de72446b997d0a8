"""Joint training, the rivals of detached training: one loss on one head that sees all features."""
