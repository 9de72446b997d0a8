"""Python client and the command ``dimml predict``. Transports are imported when a client of theirs is made."""

from dimml_client.client import Client

__all__ = ["Client"]
