"""Asking a server to cancel what a session is doing: by a connection of its own.

Law: it goes to the address that the session was connected to, which a name may have many of, and
with TLS exactly where the session has it: who can read the key can cancel as well.

Source: PostgreSQL documentation, "Canceling Requests in Progress".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

from ..codec.abc import Codec
from ..errors import ConnectionFailed, UsageError, server_error
from ..protocol.backend import ServerState, error_fields, unexpected
from ..protocol.conversation import RECEIVE, Conversation, Exchange, Frame, Send
from ..protocol.frontend import cancel_request
from .aio.connecting import open_async_transport
from .attempts import Attempt
from .blocking.connecting import open_transport
from .clock import Deadline

__all__ = ["cancel", "cancel_async"]


def cancel(way: Attempt, state: ServerState, codec: Codec, timeout: float | None) -> None:
    """Ask for it, and wait until the server has taken note.

    `way` is what the session was `Opened` by. `timeout` in seconds; None: connect_timeout, if there
    is one. Raises `UsageError`, `ConnectionFailed`, `TLSError`, `ServerError` or `TimeoutError`.
    """
    request = _request(state)
    again = _again(way, timeout)
    with _in_time(again):
        transport = open_transport(again, codec)
        try:
            transport.run(Exchange(_ask(request, again)), again.deadline)
            # There is no answer but this, and a reset is as good.
            with contextlib.suppress(ConnectionFailed):
                transport.run(Exchange(_expect_nothing()), again.deadline)
        finally:
            transport.close()


async def cancel_async(
    way: Attempt, state: ServerState, codec: Codec, timeout: float | None
) -> None:
    """See `cancel`; in any event loop."""
    request = _request(state)
    again = _again(way, timeout)
    with _in_time(again):
        async with asyncio.timeout(again.deadline.left()):
            transport = await open_async_transport(again, codec)
            try:
                await transport.run(Exchange(_ask(request)), Deadline.after(None))
                with contextlib.suppress(ConnectionFailed):
                    await transport.run(Exchange(_expect_nothing()), Deadline.after(None))
            finally:
                transport.close()
                await transport.wait_closed()


def _request(state: ServerState) -> bytes:
    if not state.cancel_key:
        raise UsageError(
            "expected a server that has told how to cancel what it does, this one sent no key; use "
            f"pg_cancel_backend({state.pid or 'pid'}) in another session"
        )
    return cancel_request(state.pid, state.cancel_key)


def _again(way: Attempt, timeout: float | None) -> Attempt:
    limit = way.parameters.connect_timeout if timeout is None else timeout
    return replace(way, deadline=Deadline.after(limit))


def _ask(request: bytes, way: Attempt | None = None) -> Conversation[None]:
    if way is not None:
        yield from way.encryption()
    yield Send(request)


def _expect_nothing() -> Conversation[None]:
    frame: Frame = yield RECEIVE
    if frame[0] == b"E":
        raise server_error(error_fields(frame))
    raise unexpected(frame, "the end of the connection in answer to the request to cancel")


@contextlib.contextmanager
def _in_time(way: Attempt) -> Iterator[None]:
    try:
        yield
        return
    except TimeoutError:
        error = TimeoutError(
            f"{way.where} has not taken note of the request to cancel within "
            f"{way.deadline.timeout} s; it may still do so, and can be asked again"
        )
    raise error from None
