"""Asking a server to cancel what a session is doing: by a connection of its own."""

from __future__ import annotations

import contextlib

from ...codec.abc import Codec
from ...errors import ConnectionFailed
from ...protocol.backend import ServerState
from ...protocol.conversation import Conversation, Exchange, Send
from ..attempts import Attempt
from ..cancelling import cancelling_within, expect_nothing, request_to_cancel, same_way
from .connecting import open_transport

__all__ = ["cancel"]


def cancel(way: Attempt, state: ServerState, codec: Codec, timeout: float | None) -> None:
    """Ask for it, and wait until the server has taken note.

    `way` is what the session was `Opened` by. `timeout` in seconds; None: connect_timeout, if there
    is one. Raises `UsageError`, `ConnectionFailed`, `TLSError`, `ServerError` or `TimeoutError`.
    """
    request = request_to_cancel(state)
    again = same_way(way, timeout)
    with cancelling_within(again):
        transport = open_transport(again, codec)
        try:
            transport.run(Exchange(_ask(request, again)), again.deadline)
            # There is no answer but this, and a reset is as good.
            with contextlib.suppress(ConnectionFailed):
                transport.run(Exchange(expect_nothing()), again.deadline)
        finally:
            transport.close()


def _ask(request: bytes, way: Attempt) -> Conversation[None]:
    yield from way.encryption()
    yield Send(request)
