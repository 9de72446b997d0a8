"""The server process: wiring, listeners, start and stop."""
