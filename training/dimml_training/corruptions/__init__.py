"""The corruption suite: what clips may suffer, under which names, and what encoders make of it (docs/robustness.md)."""
