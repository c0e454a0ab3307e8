"""From a bare connection to the first ReadyForQuery.

Law: until then nobody has proved anything, so everything is bounded: what may come, how long it may
be, how many messages and bytes there may be in total.

Source: PostgreSQL documentation, "Message Flow: Start-up", "SSL Session Encryption" and
"NegotiateProtocolVersion".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..conninfo.encodings import SQL_ASCII, UTF8, python_codec
from ..errors import ProtocolError, ServerError, TLSError, server_error
from ..remedies import add_hint, remedy_at_start
from . import frontend
from .authentication import Credentials, authenticate
from .backend import BodyReader, ServerState, error_fields, unexpected
from .conversation import Conversation, Frame, Receive, ReceiveByte, Send, StartTLS
from .session_settings import settings_due

__all__ = ["request_tls", "start_up"]

# An honest server sends some twenty, a few kilobytes. Notices and settings may come at any time,
# and a hostile one could go on with them for ever.
_MAX_MESSAGES: Final = 1000
_MAX_BYTES: Final = 1 << 20

# Tag and length; the length counts itself but not the tag.
_TAG: Final = 1
_HEADER: Final = 5
# What may come before authentication is over, and the length that it may have: libpq's limits.
_MAX_LENGTHS: Final = {b"R": 2000, b"v": 2000, b"E": 30000, b"N": 30000}
_AUTHENTICATION_OK: Final = bytes(4)

_NO_SETTINGS: Final[Mapping[str, str]] = {}
_NEVER_USED: Final = 0x30001
_CANCEL_KEY_3_0: Final = 4
_MAX_CANCEL_KEY: Final = 256


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
    state: ServerState,
    parameters: Mapping[str, str],
    credentials: Credentials,
    settings: Mapping[str, str] = _NO_SETTINGS,
    *,
    client_encoding: str | None = None,
    min_protocol_version: int = frontend.PROTOCOL_3_0,
    max_protocol_version: int = frontend.PROTOCOL_3_0,
) -> Conversation[None]:
    """Say who we are and what session we want, authenticate, and wait for the first command.

    `parameters` become the StartupMessage; ``user`` must be among them. `settings` are set ahead of
    the first command, for a session that has SQL; `client_encoding` is the one that was asked for,
    if any. The versions are the
    protocol's, 0x30002 for 3.2: the highest is asked for, and the server may come down to the
    lowest; `state` tells what was agreed upon. Raises `ServerError`, `AuthenticationError` or
    `ProtocolError`.
    """
    state.protocol_version = max_protocol_version
    conversation = _start_up(state, parameters, credentials)
    gate = _Gate(state, min_protocol_version)
    reply: Any = None
    while True:
        try:
            request = conversation.send(reply)
        except StopIteration:
            state.settings_due = settings_due(settings, state.parameters, client_encoding)
            server_encoding = state.parameters.get("server_encoding")
            state.codec = python_codec(client_encoding, server_encoding)
            _check_encoding(state, settings, parameters)
            return
        except ServerError as error:
            hint = remedy_at_start(error.fields, parameters)
            raise server_error(add_hint(error.fields, hint)) from None
        reply = yield request
        if isinstance(request, Receive):
            while not gate.admits(reply):
                reply = yield request


class _Gate:
    """Sees every message before the conversation does, and keeps to itself what is about the
    protocol's version."""

    def __init__(self, state: ServerState, min_protocol_version: int) -> None:
        self._state = state
        self._min_version = min_protocol_version
        self._requested = state.protocol_version
        self._messages = 0
        self._bytes = 0
        self._may_negotiate = True
        self._is_authenticated = False

    def admits(self, frame: Frame) -> bool:
        """Check a message; False: it was for the gate."""
        tag, body = frame
        self._count(_HEADER + len(body))
        if self._is_authenticated:
            return True
        if tag not in _MAX_LENGTHS or (tag == b"v" and not self._may_negotiate):
            raise unexpected(frame, "an Authentication message")
        length = _HEADER - _TAG + len(body)
        if length > _MAX_LENGTHS[tag]:
            raise ProtocolError(
                f"expected a length of at most {_MAX_LENGTHS[tag]} for message {tag!r} before "
                f"authentication is over, got {length}",
                tag=tag,
                offset=1,
            )
        if tag == b"v":
            self._negotiate(BodyReader(frame))
        if tag in (b"v", b"R"):
            self._may_negotiate = False
        self._is_authenticated = tag == b"R" and body == _AUTHENTICATION_OK
        return tag != b"v"

    def _count(self, size: int) -> None:
        self._messages += 1
        self._bytes += size
        if self._messages > _MAX_MESSAGES:
            raise ProtocolError(
                f"expected at most {_MAX_MESSAGES} messages before the server is ready, got more"
            )
        if self._bytes > _MAX_BYTES:
            raise ProtocolError(
                f"expected at most {_MAX_BYTES} bytes before the server is ready, got more"
            )

    def _negotiate(self, reader: BodyReader) -> None:
        """NegotiateProtocolVersion: the server does not speak the version that was asked for."""
        version, count = reader.int32(), reader.int32()
        if count:
            # None was asked for, so none can be unknown.
            raise _no_version(f"no unknown protocol options, got {count} of them", 4)
        reader.finish()
        if version >> 16 != frontend.PROTOCOL_3_0 >> 16 or version == _NEVER_USED:
            raise _no_version(f"a version 3, but not 3.1, got {_dotted(version)}")
        if version >= self._requested:
            asked = _dotted(self._requested)
            raise _no_version(f"a version below {asked} as asked for, got {_dotted(version)}")
        if version < self._min_version:
            raise _no_version(
                f"a server that speaks {_dotted(self._min_version)} as min_protocol_version "
                f"demands, got one that speaks {_dotted(version)}"
            )
        self._state.protocol_version = version


def _no_version(expected: str, offset: int = 0) -> ProtocolError:
    return ProtocolError(
        f"while the version of the protocol was negotiated: expected {expected}",
        tag=b"v",
        offset=offset,
    )


def _dotted(version: int) -> str:
    return f"{version >> 16}.{version & 0xFFFF}"


def _start_up(
    state: ServerState, parameters: Mapping[str, str], credentials: Credentials
) -> Conversation[None]:
    yield Send(frontend.startup(parameters, state.protocol_version))
    yield from authenticate(state, credentials)
    while True:
        frame: Frame = yield from state.receive()
        tag = frame[0]
        if tag == b"K":
            _take_cancel_key(state, BodyReader(frame))
        elif tag == b"E":
            raise server_error(error_fields(frame))
        elif tag == b"Z":
            state.ready(frame)
            break
        else:
            raise unexpected(frame, "BackendKeyData or ReadyForQuery")


def _check_encoding(
    state: ServerState, settings: Mapping[str, str], parameters: Mapping[str, str]
) -> None:
    wanted = parameters.get("client_encoding", UTF8)
    got = state.parameters.get("client_encoding", wanted)
    if not settings and got not in (wanted, SQL_ASCII):
        # A pooler in between may have dropped the request, and no SQL can say it again; text in
        # another encoding would be misread. SQL_ASCII, what a session without a database has by
        # itself, is no encoding: what is not UTF-8 then is kept and shown as bytes.
        raise ProtocolError(f"expected client_encoding {wanted} as requested, got {got[:40]!r}")


def _take_cancel_key(state: ServerState, reader: BodyReader) -> None:
    pid, at = reader.int32(), reader.at
    is_old = state.protocol_version == frontend.PROTOCOL_3_0
    sizes = range(_CANCEL_KEY_3_0, _CANCEL_KEY_3_0 + 1) if is_old else range(1, _MAX_CANCEL_KEY + 1)
    if reader.left not in sizes:
        raise ProtocolError(
            f"expected a cancel key of {sizes[0]} to {sizes[-1]} bytes in protocol "
            f"{_dotted(state.protocol_version)}, got {reader.left}",
            tag=b"K",
            offset=at,
        )
    state.pid, state.cancel_key = pid, reader.take(reader.left)
