"""Making a connection: addresses, TLS or not, start-up, within one time limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from ..codec.abc import MAX_FRAME_LENGTH, Codec
from ..errors import AuthenticationRejected, TLSError
from ..protocol.backend import ServerState
from ..protocol.conversation import Conversation, Exchange
from ..protocol.startup import request_tls, start_up
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
from .blocking import BlockingTransport
from .clock import Deadline
from .conninfo import ConnectionParameters
from .tls import tls_wrapper

__all__ = ["open_connection"]


def open_connection(
    parameters: ConnectionParameters, codec: Codec
) -> tuple[BlockingTransport, ServerState]:
    """Connect, start up and authenticate; by several attempts, see `attempts`."""
    deadline = Deadline(parameters.connect_timeout)
    for last, tls in attempts(parameters):
        try:
            return _attempt(parameters, codec, tls, deadline)
        except (TLSError, AuthenticationRejected) as error:
            if is_final(error, last):
                raise
        except TimeoutError:
            raise not_in_time(parameters) from None
    raise AssertionError("there is at least one attempt")


def _attempt(
    parameters: ConnectionParameters, codec: Codec, tls: str, deadline: Deadline
) -> tuple[BlockingTransport, ServerState]:
    wrapper = None if tls == "no" else tls_wrapper(parameters)
    reader = codec.FrameReader()
    reader.limit = STARTUP_LIMIT
    transport = BlockingTransport(_connect(parameters, deadline), reader, wrapper)
    state = ServerState()
    try:
        transport.run(Exchange(_conversation(state, parameters, tls)), deadline)
    except BaseException:
        transport.close()
        raise
    reader.limit = MAX_FRAME_LENGTH
    return transport, state


def _conversation(
    state: ServerState, parameters: ConnectionParameters, tls: str
) -> Conversation[None]:
    if tls != "no":
        yield from request_tls(required=tls == "required")
    yield from start_up(state, parameters.startup_parameters(), parameters.password)


def _connect(parameters: ConnectionParameters, deadline: Deadline) -> socket.socket:
    failures = []
    for family, address in _addresses(parameters):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
            set_options(connection)
            return connection
        except OSError as error:
            connection.close()
            failures.append(str(error))
        except BaseException:
            connection.close()
            raise
    raise not_connected(parameters, failures)


def _addresses(parameters: ConnectionParameters) -> Iterator[tuple[int, Any]]:
    if parameters.is_unix_socket:
        yield socket.AF_UNIX, socket_path(parameters)
        return
    try:
        found = socket.getaddrinfo(parameters.host, parameters.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise no_address(parameters, error) from error
    for family, _, _, _, address in found:
        yield family, address
