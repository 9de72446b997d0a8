"""A serving process of several: ``dimml serve`` as the parent starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

import uvloop

from dimml.errors import DimmlError
from dimml_server.observability.logs import configure_logging
from dimml_server.prediction.decoder import Decoder
from dimml_server.process.lifecycle import run_server
from dimml_server.process.membership import Membership
from dimml_server.processes.board import Board
from dimml_server.processes.channel import ChannelClosedError
from dimml_server.processes.member import Member
from dimml_server.processes.start import Start, receive_start
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)


def main(descriptor: int, make_decoder: Callable[[ServerSettings], Decoder | None] = lambda settings: None) -> None:
    """Serve until SIGTERM, or until the parent is gone; ``descriptor`` is the channel to it.

    ``make_decoder`` may return a decoder to replace the decode workers of the settings.
    """
    # The parent forwards it to processes that have keys to read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    try:
        start, listener, board = receive_start(end)
    except (EOFError, OSError):
        os._exit(1)
    configure_logging(start.settings.log_level, start.settings.log_format)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        member = Member(start, listener, Board(board, start.settings.processes, start.index))
        code = runner.run(_serve(start, member, end, make_decoder(start.settings)))
    # As in dimml_server.process.entrypoint.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


async def _serve(start: Start, member: Member, end: socket.socket, decoder: Decoder | None) -> int:
    """Serve; return the process's exit code. An error at the start goes to the parent, which reports it."""
    speaking = asyncio.ensure_future(member.channel.run(end))
    membership: Membership = member
    try:
        await run_server(
            start.settings, announce=lambda addresses: member.say_ready(), decoder=decoder, member=membership
        )
    except DimmlError as error:
        try:
            await member.channel.call("failed", message=error.message, field=error.field)
        except ChannelClosedError:
            logger.error("%s", error.message)  # noqa: TRY400 - a person's mistake: no traceback
        return 1
    finally:
        speaking.cancel()
        await asyncio.wait({speaking})
    return 0
