"""The HTTP connection itself: its limits, and refusals before the application."""
