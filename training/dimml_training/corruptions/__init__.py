"""The corruption suite: corruptions of clips, and the evaluation of a run under them (docs/robustness.md)."""
