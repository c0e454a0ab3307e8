"""Who is who: the password methods, as the server asks for them.

No secret lives in a local variable here, and none of a library's own errors is passed on: their
tracebacks could show it.

Sources: PostgreSQL documentation, "Message Flow: Start-up" and "SASL Authentication"; RFC 5802,
RFC 7677 (SCRAM-SHA-256).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final, TypeVar

from scramp import ScramClient, ScramException

from ..errors import AuthenticationError, ProtocolError, server_error
from ..secret import Secret
from . import frontend
from .backend import BodyReader, ServerState, error_fields, unexpected
from .conversation import Conversation, Frame, Send

__all__ = ["authenticate"]

_T = TypeVar("_T")

_OK: Final = 0
_CLEARTEXT: Final = 3
_MD5: Final = 5
_SASL: Final = 10
_SASL_CONTINUE: Final = 11
_SASL_FINAL: Final = 12
_OTHER_METHODS: Final = {
    1: "Kerberos 4",
    2: "Kerberos 5",
    4: "crypt",
    6: "SCM credentials",
    7: "GSSAPI",
    9: "SSPI",
}
_MECHANISM: Final = "SCRAM-SHA-256"
# SCRAM's cost is set by the server before it has proved anything.
_MAX_ITERATIONS: Final = 100_000


def authenticate(state: ServerState, user: str, password: Secret | None) -> Conversation[None]:
    """Answer the server's request, if it makes one, until it says that all is well.

    Raises `AuthenticationError`, or `AuthenticationRejected` with what the server said.
    """
    code, reader = yield from _request(state)
    if code == _OK:
        reader.finish()
        return
    if code not in (_CLEARTEXT, _MD5, _SASL):
        name = _OTHER_METHODS.get(code, f"number {code}")
        raise AuthenticationError(
            f"expected a request for password, md5 or scram-sha-256 authentication, got method "
            f"{name}, which pgrepl does not support; change this user's line in the server's "
            "pg_hba.conf"
        )
    if password is None:
        raise AuthenticationError(
            "the server asks for a password and none was given; pass password=, or set PGPASSWORD"
        )
    if code == _SASL:
        yield from _scram(state, reader, password)
    elif code == _MD5:
        salt = reader.take(4)
        reader.finish()
        yield Send(frontend.message(b"p", _md5_answer(user, password, salt)))
    else:
        reader.finish()
        yield Send(frontend.message(b"p", frontend.text(password.reveal())))
    code, reader = yield from _request(state)
    if code != _OK:
        raise ProtocolError(f"expected AuthenticationOk, got request {code}", tag=b"R", offset=0)
    reader.finish()


def _request(state: ServerState) -> Conversation[tuple[int, BodyReader]]:
    frame: Frame = yield from state.receive()
    if frame[0] == b"E":
        raise server_error(error_fields(frame))
    if frame[0] != b"R":
        raise unexpected(frame, "an Authentication message")
    reader = BodyReader(frame)
    return reader.int32(), reader


def _md5_answer(user: str, password: Secret, salt: bytes) -> bytes:
    # Hashed in place: a function of ours that took the bytes would show them in a traceback.
    stored = hashlib.md5(
        (password.reveal() + user).encode("utf-8", "surrogateescape"), usedforsecurity=False
    )
    answer = hashlib.md5(stored.hexdigest().encode("ascii") + salt, usedforsecurity=False)
    return f"md5{answer.hexdigest()}\0".encode("ascii")


def _scram(state: ServerState, reader: BodyReader, password: Secret) -> Conversation[None]:
    mechanisms = []
    while name := reader.string():
        mechanisms.append(name)
    reader.finish()
    if _MECHANISM not in mechanisms:
        raise AuthenticationError(
            f"expected the server to offer {_MECHANISM}, got {mechanisms[:5]}"
        )
    # The server takes the user from the startup message and ignores the name given here.
    client = _scram_step(lambda: ScramClient([_MECHANISM], "*", password.reveal()))
    first = client.get_client_first().encode("ascii")
    yield Send(
        frontend.message(b"p", frontend.text(_MECHANISM) + struct.pack(">i", len(first)) + first)
    )
    server_first = yield from _sasl_data(state, _SASL_CONTINUE)
    _check_iterations(server_first)
    _scram_step(lambda: client.set_server_first(server_first))
    yield Send(frontend.message(b"p", _scram_step(client.get_client_final).encode("ascii")))
    server_final = yield from _sasl_data(state, _SASL_FINAL)
    # Without this step anybody could claim to be the server: it must know the password as well.
    _scram_step(lambda: client.set_server_final(server_final))


def _sasl_data(state: ServerState, expected: int) -> Conversation[str]:
    code, reader = yield from _request(state)
    if code != expected:
        raise AuthenticationError(
            f"expected step {expected} of the SCRAM exchange, got authentication request {code}; "
            "the server must prove that it knows the password before it is trusted"
        )
    data = reader.take(reader.left)
    if not data.isascii():
        raise AuthenticationError("expected a SCRAM message in ASCII, got other bytes")
    return data.decode("ascii")


def _check_iterations(server_first: str) -> None:
    value = next((p[2:] for p in server_first.split(",") if p.startswith("i=")), "")
    # Digits alone, and few of them: int() would take signs and spaces, and a hostile length.
    if not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= _MAX_ITERATIONS:
        raise AuthenticationError(
            f"expected a SCRAM iteration count between 1 and {_MAX_ITERATIONS}, got {value[:20]!r}"
        )


def _scram_step(step: Callable[[], _T]) -> _T:
    try:
        return step()
    except ScramException as error:
        reason = str(error)
    except Exception as error:
        # Which ones differs between its versions, and what they say may show the password.
        reason = f"a message that cannot be read ({type(error).__name__})"
    # Raised outside of the handler: the library's traceback, with its locals, goes no further.
    raise AuthenticationError(f"the SCRAM exchange with the server failed: {reason}")
