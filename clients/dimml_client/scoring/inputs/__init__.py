"""From the command line's words to a list of recordings."""
