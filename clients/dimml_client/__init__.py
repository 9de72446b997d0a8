"""Python client and the command ``dimml predict``. A transport is imported only when a client uses it."""

from dimml_client.client import Client

__all__ = ["Client"]
