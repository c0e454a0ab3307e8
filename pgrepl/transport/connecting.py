"""Making a connection: addresses, TLS or not, start-up, within one time limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..codec.abc import MAX_FRAME_LENGTH, Codec
from ..errors import AuthenticationRejected, ConnectionFailed, TLSError
from ..protocol.backend import ServerState
from ..protocol.conversation import Conversation, Exchange
from ..protocol.startup import request_tls, start_up
from .blocking import BlockingTransport
from .clock import Deadline
from .conninfo import ConnectionParameters
from .tls import tls_wrapper

__all__ = ["open_connection"]

# Nobody has proved anything yet, and no honest message is longer.
_STARTUP_LIMIT: Final = 65536


def open_connection(
    parameters: ConnectionParameters, codec: Codec
) -> tuple[BlockingTransport, ServerState]:
    """Connect, start up and authenticate.

    Under sslmode=prefer a second attempt without TLS is made where TLS itself failed, or where the
    server turned the TLS connection away before a password was asked for.
    """
    deadline = Deadline(parameters.connect_timeout)
    attempts = _attempts(parameters)
    for last, tls in attempts:
        try:
            return _attempt(parameters, codec, tls, deadline)
        except (TLSError, AuthenticationRejected) as error:
            rejected_later = isinstance(error, AuthenticationRejected) and error.sqlstate != "28000"
            if last or rejected_later:
                raise
        except TimeoutError:
            raise ConnectionFailed(
                f"no connection to {parameters.where} within connect_timeout, "
                f"{parameters.connect_timeout} s"
            ) from None
    raise AssertionError("there is at least one attempt")


def _attempts(parameters: ConnectionParameters) -> list[tuple[bool, str]]:
    """Return (is the last one, TLS: "no", "offered" or "required") in the order to be tried."""
    if parameters.is_unix_socket or parameters.sslmode == "disable":
        return [(True, "no")]
    if parameters.sslmode == "prefer":
        return [(False, "offered"), (True, "no")]
    return [(True, "required")]


def _attempt(
    parameters: ConnectionParameters, codec: Codec, tls: str, deadline: Deadline
) -> tuple[BlockingTransport, ServerState]:
    wrapper = None if tls == "no" else tls_wrapper(parameters)
    reader = codec.FrameReader()
    reader.limit = _STARTUP_LIMIT
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
            if family != getattr(socket, "AF_UNIX", None):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection
        except OSError as error:
            connection.close()
            failures.append(str(error))
        except BaseException:
            connection.close()
            raise
    raise ConnectionFailed(
        f"could not connect to {parameters.where}: {'; '.join(dict.fromkeys(failures))}; is the "
        "server running there and listening?"
    )


def _addresses(parameters: ConnectionParameters) -> Iterator[tuple[int, Any]]:
    if parameters.is_unix_socket:
        yield socket.AF_UNIX, str(Path(parameters.host) / f".s.PGSQL.{parameters.port}")
        return
    try:
        found = socket.getaddrinfo(parameters.host, parameters.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(
            f"could not find the address of host {parameters.host!r}: {error}"
        ) from error
    for family, _, _, _, address in found:
        yield family, address
