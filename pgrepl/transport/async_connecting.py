"""Making a connection in an event loop: addresses, TLS or not, start-up, within one time limit.

Law: the order of things and the words of the errors are those of `connecting`. What is said before
TLS goes over the bare socket, one byte of which is read and no more; only then does the event loop
get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Any

from ..codec.abc import MAX_FRAME_LENGTH, Codec
from ..errors import AuthenticationRejected, ConnectionFailed, TLSError
from ..protocol.backend import ServerState
from ..protocol.conversation import Exchange, ReceiveByte, Send
from ..protocol.startup import request_tls, start_up
from .asynchronous import AsyncTransport
from .attempts import (
    STARTUP_LIMIT,
    attempts,
    is_final,
    no_address,
    not_connected,
    not_in_time,
    set_options,
    socket_path,
)
from .clock import Deadline
from .conninfo import ConnectionParameters
from .tls import tls_context
from .tls_filter import TLSFilter

__all__ = ["open_async_connection"]


async def open_async_connection(
    parameters: ConnectionParameters, codec: Codec
) -> tuple[AsyncTransport, ServerState]:
    """Connect, start up and authenticate; see `connecting.open_connection`.

    When it is cancelled, nothing is left open.
    """
    deadline = Deadline(parameters.connect_timeout)
    for last, tls in attempts(parameters):
        try:
            return await _attempt(parameters, codec, tls, deadline)
        except (TLSError, AuthenticationRejected) as error:
            if is_final(error, last):
                raise
        except TimeoutError:
            raise not_in_time(parameters) from None
    raise AssertionError("there is at least one attempt")


async def _attempt(
    parameters: ConnectionParameters, codec: Codec, tls: str, deadline: Deadline
) -> tuple[AsyncTransport, ServerState]:
    context = None if tls == "no" else tls_context(parameters)
    connected = await _connect(parameters, deadline)
    reader = codec.FrameReader()
    reader.limit = STARTUP_LIMIT
    async with asyncio.timeout(deadline.left()):
        transport = await _transport(parameters, connected, reader, context, tls)
        state = ServerState()
        try:
            if transport.has_tls:
                await transport.shake_hands()
            exchange = Exchange(
                start_up(state, parameters.startup_parameters(), parameters.password)
            )
            await transport.run(exchange, Deadline.after(None))
        except BaseException:
            transport.close()
            await transport.wait_closed()
            raise
    reader.limit = MAX_FRAME_LENGTH
    return transport, state


async def _transport(
    parameters: ConnectionParameters,
    connected: socket.socket,
    reader: Any,
    context: ssl.SSLContext | None,
    tls: str,
) -> AsyncTransport:
    """Agree on TLS or none, and hand the socket over to the event loop."""
    try:
        wanted = context is not None and await _request_tls(connected, required=tls == "required")
        filtered = None
        if context is not None and wanted:
            try:
                filtered = TLSFilter(context, parameters.host or None, reader)
            except ssl.SSLError as error:
                raise TLSError(f"TLS could not be set up: {error.reason or error}") from error
        transport = AsyncTransport(connected, reader, filtered)
    except BaseException:
        connected.close()
        raise
    await transport.attach()
    return transport


async def _request_tls(connected: socket.socket, required: bool) -> bool:
    """Ask the server for TLS; whether it is to begin now."""
    loop = asyncio.get_running_loop()
    exchange = Exchange(request_tls(required))
    while (request := exchange.request) is not None:
        if isinstance(request, Send):
            try:
                await loop.sock_sendall(connected, request.data)
            except OSError as error:
                raise _failed("sending", error) from error
            exchange.answer(None)
        elif isinstance(request, ReceiveByte):
            try:
                answer = await loop.sock_recv(connected, 1)
            except OSError as error:
                raise _failed("receiving", error) from error
            if not answer:
                raise ConnectionFailed("the server closed the connection; its log may say why")
            exchange.answer(answer)
        else:
            _expect_silence(connected)
            # The handshake itself is the transport's.
            exchange.answer(None)
    return exchange.result


def _expect_silence(connected: socket.socket) -> None:
    """Bytes that came before the handshake would be taken as if they had come inside TLS."""
    try:
        with contextlib.suppress(BlockingIOError):
            if connected.recv(1, socket.MSG_PEEK):
                raise TLSError(
                    "expected nothing before the TLS handshake, got data: somebody on the way may "
                    "be trying to slip in unprotected answers"
                )
    except OSError as error:
        raise _failed("receiving", error) from error


def _failed(doing: str, error: OSError) -> ConnectionFailed:
    return ConnectionFailed(f"the connection to the server failed while {doing}: {error}")


async def _connect(parameters: ConnectionParameters, deadline: Deadline) -> socket.socket:
    loop = asyncio.get_running_loop()
    failures = []
    for family, address in await _addresses(parameters, deadline):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(deadline.left()):
                await loop.sock_connect(connection, address)
            set_options(connection)
            return connection
        except OSError as error:
            connection.close()
            failures.append(_reason(error))
        except BaseException:
            connection.close()
            raise
    raise not_connected(parameters, failures)


def _reason(error: OSError) -> str:
    # The event loops have words of their own, and none for a time limit.
    return str(OSError(error.errno, os.strerror(error.errno))) if error.errno else "timed out"


async def _addresses(parameters: ConnectionParameters, deadline: Deadline) -> list[tuple[int, Any]]:
    if parameters.is_unix_socket:
        return [(socket.AF_UNIX, socket_path(parameters))]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(deadline.left()):
        try:
            found = await loop.getaddrinfo(
                parameters.host, parameters.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise no_address(parameters, error) from error
    return [(family, address) for family, _, _, _, address in found]
