"""What a comparison does for rivals: fits, trials of settings, and the table that sets them side by side."""
