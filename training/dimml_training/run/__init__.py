"""The results of a training: its run directory, the votes of its heads, its fusion."""
