"""Python client and the command ``dimml predict``."""
