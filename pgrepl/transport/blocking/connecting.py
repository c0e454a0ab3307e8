"""Making a connection: the blocking flavour's way to look up names and to make attempts.

Law: which ones, in which order, and what they come to, is for `attempts` to say; here they are only
carried out, each with a socket, a reader, a state and a TLS context of its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from ...codec.abc import Codec
from ...conninfo import ConnectionParameters
from ...errors import ConnectionFailed
from ...protocol.backend import ServerState
from ...protocol.conversation import Conversation, Exchange, Steps
from ..attempts import STARTUP_LIMIT, Attempt, LookUp, Opened, search
from ..sockets import Address, check_peer_user, distinct, is_local, new_socket, numeric_addresses
from ..tls import TLSClient
from ..wire_trace import WireTrace
from .driver import BlockingTransport
from .traced import TracedTransport

__all__ = ["Found", "given_addresses", "look_up", "open_connection", "open_transport"]

Found: TypeAlias = list[Address] | ConnectionFailed
"""What comes of looking up a name."""


def open_connection(parameters: ConnectionParameters, codec: Codec) -> Opened[BlockingTransport]:
    """Connect, start up and authenticate; by several attempts, see `attempts.search`."""
    steps: Steps[LookUp | Attempt, Opened[BlockingTransport]] = Steps(search(parameters))
    return steps.run(partial(_carry_out, codec))


def _carry_out(codec: Codec, request: LookUp | Attempt) -> object:
    if isinstance(request, LookUp):
        return _look_up(request)
    try:
        return _attempt(request, codec)
    except TimeoutError:
        error = request.not_in_time()
    raise error


def _attempt(attempt: Attempt, codec: Codec) -> Opened[BlockingTransport]:
    transport = open_transport(attempt, codec)
    state = ServerState()
    try:
        encrypted = transport.run(
            Exchange(_conversation(attempt, state, is_local(transport.socket))), attempt.deadline
        )
    except BaseException:
        transport.close()
        raise
    transport.session_has_begun()
    return Opened(transport, state, attempt.made_with(tls=encrypted))


def _conversation(attempt: Attempt, state: ServerState, local: bool) -> Conversation[bool]:
    is_encrypted = yield from attempt.encryption()
    yield from attempt.session(state, is_encrypted=is_encrypted, is_local=local)
    return is_encrypted


def open_transport(attempt: Attempt, codec: Codec) -> BlockingTransport:
    """Connect, and no more. Raises `ConnectionFailed`, `TimeoutError`, `UsageError`, or
    `AuthenticationError` where the server runs as somebody else than requirepeer asks for."""
    tls = None if attempt.tls == "no" else TLSClient(attempt.parameters.tls, attempt.host)
    reader = codec.FrameReader()
    reader.limit = STARTUP_LIMIT
    connected = new_socket(attempt.family, attempt.parameters.tcp)
    try:
        _connect(connected, attempt)
        check_peer_user(connected, attempt.parameters.requirepeer)
        trace = WireTrace.if_wanted(attempt.where)
        if trace is not None:
            return TracedTransport(connected, reader, tls, trace=trace)
        return BlockingTransport(connected, reader, tls)
    except BaseException:
        connected.close()
        raise


def _connect(connected: socket.socket, attempt: Attempt) -> None:
    left = attempt.deadline.left()
    if left == 0.0:
        raise TimeoutError
    connected.settimeout(left)
    try:
        connected.connect(attempt.address)
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:
            raise  # our own time limit, and not the operating system's
        raise attempt.not_connected(error) from error


def _look_up(request: LookUp) -> list[Address]:
    if (given := given_addresses(request)) is not None:
        return given
    # The system's resolver has time limits of its own, of minutes, and nothing can interrupt it.
    if request.deadline.left() is None:
        return _resolve(request)
    answer: list[Found] = []
    look_up(request, answer.append).join(request.deadline.left())
    if not answer:
        raise request.not_in_time()
    if isinstance(answer[0], ConnectionFailed):
        raise answer[0]
    return answer[0]


def given_addresses(request: LookUp) -> list[Address] | None:
    """Return the addresses that need no looking up; None: it is a name. Raises
    `ConnectionFailed`."""
    found = numeric_addresses(request.name, request.port)
    if found is None and request.is_numeric:
        raise request.not_found("it is not an IP address, which hostaddr has to be")
    return found


def look_up(request: LookUp, tell: Callable[[Found], None]) -> threading.Thread:
    """Look up a name in a thread of its own, for which neither an event loop nor Python waits when
    it ends; `tell` is called there."""
    thread = threading.Thread(
        target=lambda: tell(_resolved(request)),
        name=f"pgrepl look-up of {request.name}",
        daemon=True,
    )
    thread.start()
    return thread


def _resolved(request: LookUp) -> Found:
    try:
        return _resolve(request)
    except ConnectionFailed as error:
        return error


def _resolve(request: LookUp) -> list[Address]:
    found: Any
    try:
        found = socket.getaddrinfo(request.name, request.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise request.not_found(error) from error
    return distinct(found)
