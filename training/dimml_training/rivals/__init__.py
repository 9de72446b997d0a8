"""Rivals that fit their fusion to the damaged validation rows that ours chooses on, on the same frozen encoders."""
