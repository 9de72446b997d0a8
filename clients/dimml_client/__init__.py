"""Python clients and the command ``dimml predict``. A transport is imported only when a client uses it."""

from dimml_client.async_client import AsyncClient
from dimml_client.client import Client

__all__ = ["AsyncClient", "Client"]
