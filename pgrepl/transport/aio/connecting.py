"""Making a connection in an event loop: looking up names, and making attempts.

Law: which ones, in which order, and what they come to, is for `attempts` to say, as in
`connecting`. What is said before TLS goes over the bare socket, one byte of which is read and no
more; only then does the event loop get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from functools import partial

from ...codec.abc import Codec, FrameReader
from ...conninfo import ConnectionParameters
from ...errors import ConnectionFailed
from ...protocol.backend import ServerState
from ...protocol.conversation import Exchange, ReceiveByte, Request, Send, Steps
from ..attempts import STARTUP_LIMIT, Attempt, LookUp, Opened, search
from ..blocking.connecting import Found, given_addresses, look_up
from ..clock import Deadline
from ..sockets import (
    Address,
    check_peer_user,
    expect_silence,
    is_local,
    new_socket,
)
from ..tls import TLSClient
from ..tls_filter import TLSFilter
from ..wire_trace import WireTrace
from .driver import AsyncTransport
from .traced import AsyncTracedTransport

__all__ = ["open_async_connection", "open_async_transport"]


async def open_async_connection(
    parameters: ConnectionParameters, codec: Codec
) -> Opened[AsyncTransport]:
    """Connect, start up and authenticate; by several attempts, see `attempts.search`.

    When it is cancelled, nothing is left open.
    """
    steps: Steps[LookUp | Attempt, Opened[AsyncTransport]] = Steps(search(parameters))
    return await steps.run_async(partial(_carry_out, codec))


async def _carry_out(codec: Codec, request: LookUp | Attempt) -> object:
    try:
        async with asyncio.timeout(request.deadline.left()):
            if isinstance(request, LookUp):
                return await _look_up(request)
            return await _attempt(request, codec)
    except TimeoutError:
        error = request.not_in_time()
    raise error


async def _attempt(attempt: Attempt, codec: Codec) -> Opened[AsyncTransport]:
    transport = await open_async_transport(attempt, codec)
    state = ServerState()
    try:
        session = attempt.session(
            state, is_encrypted=transport.has_tls, is_local=transport.is_local
        )
        await transport.run(Exchange(session), Deadline.after(None))
    except BaseException:
        transport.close()
        await transport.wait_closed()
        raise
    transport.session_has_begun()
    return Opened(transport, state, attempt.made_with(tls=transport.has_tls))


async def open_async_transport(attempt: Attempt, codec: Codec) -> AsyncTransport:
    """Connect, with TLS or not, and no more; see `connecting.open_transport`."""
    tls = None if attempt.tls == "no" else TLSClient(attempt.parameters.tls, attempt.host)
    reader = codec.FrameReader()
    reader.limit = STARTUP_LIMIT
    connected = new_socket(attempt.family, attempt.parameters.tcp)
    try:
        connected.setblocking(False)
        await _connect(connected, attempt)
        check_peer_user(connected, attempt.parameters.requirepeer)
        trace = WireTrace.if_wanted(attempt.where)
        filtered = None
        if await _begins_tls(connected, attempt, trace) and tls is not None:
            filtered = TLSFilter(tls, reader)
        transport = _transport(connected, reader, filtered, trace)
    except BaseException:
        connected.close()
        raise
    await transport.attach()
    try:
        if transport.has_tls:
            await transport.shake_hands()
    except BaseException:
        transport.close()
        await transport.wait_closed()
        raise
    return transport


def _transport(
    connected: socket.socket, reader: FrameReader, tls: TLSFilter | None, trace: WireTrace | None
) -> AsyncTransport:
    local = is_local(connected)
    if trace is not None:
        return AsyncTracedTransport(connected, reader, tls, is_local=local, trace=trace)
    return AsyncTransport(connected, reader, tls, is_local=local)


async def _begins_tls(connected: socket.socket, attempt: Attempt, trace: WireTrace | None) -> bool:
    """Agree on TLS or none; whether it is to begin now."""
    return await Exchange(attempt.encryption()).run_async(
        partial(_say_before_tls, connected, trace)
    )


async def _say_before_tls(
    connected: socket.socket, trace: WireTrace | None, request: Request
) -> bytes | None:
    loop = asyncio.get_running_loop()
    if isinstance(request, Send):
        if trace is not None:
            trace.sent(request.data, is_reply=False)
        try:
            await loop.sock_sendall(connected, request.data)
        except OSError as error:
            raise _failed("sending", error) from error
        return None
    if isinstance(request, ReceiveByte):
        try:
            answer = await loop.sock_recv(connected, 1)
        except OSError as error:
            raise _failed("receiving", error) from error
        if not answer:
            raise ConnectionFailed("the server closed the connection; its log may say why")
        if trace is not None:
            trace.received_byte(answer)
        return answer
    try:
        expect_silence(connected)
    except OSError as error:
        raise _failed("receiving", error) from error
    return None  # the handshake itself is the transport's


def _failed(doing: str, error: OSError) -> ConnectionFailed:
    return ConnectionFailed(f"the connection to the server failed while {doing}: {error}")


async def _connect(connected: socket.socket, attempt: Attempt) -> None:
    try:
        if attempt.family == getattr(socket, "AF_UNIX", None):
            # It takes no time. The loop would wait for a socket whose server has too many waiting
            # already, and take it for connected.
            connected.connect(attempt.address)
        else:
            await asyncio.get_running_loop().sock_connect(connected, attempt.address)
    except OSError as error:
        # The event loops have words of their own.
        told = OSError(error.errno, os.strerror(error.errno)) if error.errno else error
        raise attempt.not_connected(told) from error


async def _look_up(request: LookUp) -> list[Address]:
    if (given := given_addresses(request)) is not None:
        return given
    # In a thread, which nothing can interrupt. Not by the loop's own method: each loop has other
    # words for what goes wrong, and waits at its end for threads of its own.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Found] = loop.create_future()

    def tell(found: Found) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, answer, found)

    thread = look_up(request, tell)
    found = await answer
    thread.join()  # it has nothing more to do
    if isinstance(found, ConnectionFailed):
        raise found
    return found


def _settle(answer: asyncio.Future[Found], found: Found) -> None:
    if not answer.done():
        answer.set_result(found)
