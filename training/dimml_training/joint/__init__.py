"""Joint training, to compare detached training with: one loss on one head that sees all features."""
