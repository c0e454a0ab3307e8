"""Asking a server to cancel what a session is doing, in any event loop."""

from __future__ import annotations

import asyncio
import contextlib

from ...codec.abc import Codec
from ...errors import ConnectionFailed
from ...protocol.backend import ServerState
from ...protocol.conversation import Conversation, Exchange, Send
from ..attempts import Attempt
from ..cancelling import cancelling_within, expect_nothing, request_to_cancel, same_way
from ..clock import Deadline
from .connecting import open_async_transport

__all__ = ["cancel_async"]


async def cancel_async(
    way: Attempt, state: ServerState, codec: Codec, timeout: float | None
) -> None:
    """See `cancel` of the blocking flavour."""
    request = request_to_cancel(state)
    again = same_way(way, timeout)
    with cancelling_within(again):
        async with asyncio.timeout(again.deadline.left()):
            transport = await open_async_transport(again, codec)
            try:
                await transport.run(Exchange(_ask(request)), Deadline.after(None))
                with contextlib.suppress(ConnectionFailed):
                    await transport.run(Exchange(expect_nothing()), Deadline.after(None))
            finally:
                transport.close()
                await transport.wait_closed()


def _ask(request: bytes) -> Conversation[None]:
    yield Send(request)  # opening the transport has seen to TLS
