"""Servers that ``benchmarks/peers.py`` measures beside ``dimml serve``; each runs in an environment of its own."""
