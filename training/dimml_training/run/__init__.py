"""What a finished training leaves behind: its directory, the votes of its heads, its fusion."""
