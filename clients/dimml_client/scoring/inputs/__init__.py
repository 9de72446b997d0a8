"""Conversion of command line arguments to a list of recordings."""
