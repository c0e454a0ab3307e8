"""From a bare connection to the first ReadyForQuery.

Source: PostgreSQL documentation, "Message Flow: Start-up" and "SSL Session Encryption".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import ProtocolError, TLSError, server_error
from ..secret import Secret
from . import frontend
from .authentication import authenticate
from .backend import BodyReader, ServerState, error_fields, unexpected
from .conversation import Conversation, Frame, Receive, ReceiveByte, Send, StartTLS

__all__ = ["request_tls", "start_up"]

# An honest server sends some twenty. Notices and settings may come at any time, and a hostile one
# could go on with them for ever.
_MAX_MESSAGES: Final = 1000


def request_tls(required: bool) -> Conversation[bool]:
    """Ask for TLS and begin it; False where the server has none and none is required.

    Raises `TLSError`. What the server says before TLS is not shown: anybody on the way could have
    said it.
    """
    yield Send(frontend.SSL_REQUEST)
    answer: bytes = yield ReceiveByte()
    if answer == b"S":
        yield StartTLS()
        return True
    if answer == b"N":
        if required:
            raise TLSError(
                "the server does not offer TLS, which this sslmode requires; set ssl = on there or "
                "connect with sslmode=prefer or disable, if the way there can be trusted"
            )
        return False
    if answer == b"E":
        raise TLSError(
            "the server refused the request for TLS with an error message, which is not shown: "
            "nobody knows who sent it"
        )
    raise TLSError(f"expected the byte 'S' or 'N' in answer to the request for TLS, got {answer!r}")


def start_up(
    state: ServerState, parameters: Mapping[str, str], password: Secret | None
) -> Conversation[None]:
    """Say who we are and what session we want, authenticate, and wait for the first command.

    `parameters` become the StartupMessage; ``user`` must be among them. Raises `ServerError`,
    `AuthenticationError` or `ProtocolError`.
    """
    conversation = _start_up(state, parameters, password)
    received = 0
    reply: object = None
    while True:
        try:
            request = conversation.send(reply)
        except StopIteration:
            return
        received += isinstance(request, Receive)
        if received > _MAX_MESSAGES:
            raise ProtocolError(
                f"expected at most {_MAX_MESSAGES} messages before the server is ready, got more"
            )
        reply = yield request


def _start_up(
    state: ServerState, parameters: Mapping[str, str], password: Secret | None
) -> Conversation[None]:
    yield Send(frontend.startup(parameters))
    yield from authenticate(state, parameters["user"], password)
    while True:
        frame: Frame = yield from state.receive()
        tag = frame[0]
        if tag == b"K":
            reader = BodyReader(frame)
            state.pid = reader.int32()
            state.cancel_key = reader.take(reader.left)
        elif tag == b"E":
            raise server_error(error_fields(frame))
        elif tag == b"Z":
            state.ready(frame)
            break
        else:
            raise unexpected(frame, "BackendKeyData or ReadyForQuery")
    if state.parameters.get("client_encoding", "UTF8") != "UTF8":
        # A pooler in between may have dropped the request; text in another encoding would be
        # misread.
        raise ProtocolError(
            "expected client_encoding UTF8 as requested, got "
            f"{state.parameters['client_encoding']!r}"
        )
