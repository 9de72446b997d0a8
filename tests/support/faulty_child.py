"""A serving process of several with ``faulty_decode`` in its decode workers."""

from __future__ import annotations

from dimml.media.workers.pool import DecodePool
from dimml_server.processes import child
from support.faulty_decoding import faulty_decode


def main(descriptor: int) -> None:
    """``dimml_server.processes.child.main``, with another decoder."""
    child.main(descriptor, lambda settings: DecodePool(settings.decode_workers, decode_function=faulty_decode))
