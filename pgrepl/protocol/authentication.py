"""Who is who: the methods of authentication, as the server asks for them.

Law: what this side demands (require_auth, channel_binding, no password in the clear) is checked
before anything that is made of a secret leaves, and once more when the server says that all is
well. No secret lives in a local variable here, and no library's own error is passed on: their
tracebacks could show it.

Sources: PostgreSQL documentation, "Message Flow: Start-up", "SASL Authentication" and
"Parameter Key Words" (libpq); `scram` and `kerberos` name theirs.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import struct
from dataclasses import dataclass, field
from typing import Final

from ..conninfo.parameters import AuthenticationSettings
from ..errors import AuthenticationError, ProtocolError, UsageError, server_error
from ..secret import Secret
from . import frontend, scram
from .backend import BodyReader, ServerState, error_fields, unexpected
from .channel_binding import end_point
from .conversation import Compute, Conversation, Frame, PeerCertificate, Send
from .kerberos import KerberosContext

__all__ = ["Credentials", "authenticate"]

_log = logging.getLogger("pgrepl.authentication")

_OK: Final = 0
_CLEARTEXT: Final = 3
_MD5: Final = 5
_GSS: Final = 7
_GSS_CONTINUE: Final = 8
_SASL: Final = 10
_SASL_CONTINUE: Final = 11
_SASL_FINAL: Final = 12
_OTHER_METHODS: Final = {
    1: "Kerberos 4",
    2: "Kerberos 5",
    4: "crypt",
    6: "SCM credentials",
    9: "SSPI",
}
# The words of require_auth.
_WORDS: Final = {_OK: "none", _CLEARTEXT: "password", _MD5: "md5", _GSS: "gss"} | {
    _SASL: "scram-sha-256"
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who wants to connect, with what, and over which way.

    `host` is the server's name, which Kerberos needs. `is_encrypted`: by TLS. `is_local`: over a
    Unix socket or the loopback interface, where nobody else listens.
    """

    user: str
    password: Secret | None = None
    settings: AuthenticationSettings = field(default_factory=AuthenticationSettings)
    host: str = ""
    is_encrypted: bool = False
    is_local: bool = False


def authenticate(state: ServerState, credentials: Credentials) -> Conversation[None]:
    """Answer the server's request, if it makes one, until it says that all is well.

    Raises `AuthenticationError`, or `AuthenticationRejected` with what the server said;
    `ProtocolError`; `UsageError` for keys or a password that are none.
    """
    request, reader = yield from _request(state)
    _check_request(request, credentials)
    is_bound = False
    if request != _OK:
        if request == _CLEARTEXT:
            yield from _cleartext(reader, credentials)
        elif request == _MD5:
            yield from _md5(reader, credentials)
        elif request == _GSS:
            yield from _kerberos(state, reader, credentials)
        else:
            is_bound = yield from _scram(state, reader, credentials)
        code, reader = yield from _request(state)
        if code != _OK:
            raise ProtocolError(
                f"expected AuthenticationOk, got request {code}", tag=b"R", offset=0
            )
    reader.finish()
    if credentials.settings.channel_binding == "require" and not is_bound:
        raise _not_bound("it lets us in without any")


def _request(state: ServerState) -> Conversation[tuple[int, BodyReader]]:
    frame: Frame = yield from state.receive()
    if frame[0] == b"E":
        raise server_error(error_fields(frame))
    if frame[0] != b"R":
        raise unexpected(frame, "an Authentication message")
    reader = BodyReader(frame)
    return reader.int32(), reader


def _check_request(request: int, credentials: Credentials) -> None:
    """Refuse what this side cannot do or does not want; nothing has been sent yet.

    This includes AuthenticationOk at once: the server asks for nothing.
    """
    settings = credentials.settings
    word = _WORDS.get(request)
    if word is None:
        name = _OTHER_METHODS.get(request, f"number {request}")
        raise AuthenticationError(
            "expected a request for password, md5, scram-sha-256 or gss authentication, got method "
            f"{name}, which pgrepl does not support; change this user's line in the server's "
            "pg_hba.conf"
        )
    if settings.channel_binding == "require":
        if not credentials.is_encrypted:
            raise _not_bound("this connection has no TLS to bind to")
        if request not in (_SASL, _OK):
            raise _not_bound(f"it asks for {word}")
    allowed = settings.require_auth
    if allowed is not None and word not in allowed:
        got = f"asks for {word}" if request != _OK else "lets us in without asking for anything"
        raise AuthenticationError(
            f"expected one of the methods of require_auth, {', '.join(sorted(allowed))}, but the "
            f"server {got}; nothing was sent"
        )


def _not_bound(reason: str) -> AuthenticationError:
    return AuthenticationError(
        "expected the server to authenticate by SCRAM-SHA-256-PLUS over TLS, as "
        f"channel_binding=require demands, but {reason}; a server of PostgreSQL 11 or later with "
        "TLS and scram-sha-256 in its pg_hba.conf can"
    )


def _password(credentials: Credentials) -> Secret:
    if credentials.password is None:
        raise AuthenticationError(
            "the server asks for a password and none was given; pass password=, or set PGPASSWORD"
        )
    return credentials.password


# The password itself, and MD5


def _cleartext(reader: BodyReader, credentials: Credentials) -> Conversation[None]:
    reader.finish()
    is_safe = credentials.is_encrypted or credentials.is_local
    if not is_safe and not credentials.settings.allow_cleartext_password:
        raise AuthenticationError(
            "the server asks for the password itself over a connection without TLS, where anybody "
            "on the way can read it, and it was not sent; use sslmode=require or better, or "
            "scram-sha-256 in the server's pg_hba.conf; allow_cleartext_password=1 sends it all "
            "the same"
        )
    yield _password_message(_password(credentials))


def _password_message(password: Secret) -> Send:
    try:
        return Send(frontend.message(b"p", frontend.text(password.reveal())))
    except BaseException as error:
        # Ctrl-C, above all: what is called here has the password in its local variables.
        raise error.with_traceback(None) from None


def _md5(reader: BodyReader, credentials: Credentials) -> Conversation[None]:
    salt = reader.take(4)
    reader.finish()
    yield Send(frontend.message(b"p", _md5_answer(credentials.user, _password(credentials), salt)))


def _md5_answer(user: str, password: Secret, salt: bytes) -> bytes:
    # Hashed in place: a function of ours that took the bytes would show them in a traceback.
    stored = hashlib.md5(
        (password.reveal() + user).encode("utf-8", "surrogateescape"), usedforsecurity=False
    )
    answer = hashlib.md5(stored.hexdigest().encode("ascii") + salt, usedforsecurity=False)
    return f"md5{answer.hexdigest()}\0".encode("ascii")


# SCRAM


def _scram(state: ServerState, reader: BodyReader, credentials: Credentials) -> Conversation[bool]:
    """Both prove that they know the password; whether that is bound to the TLS connection."""
    mechanisms = []
    while name := reader.string():
        mechanisms.append(name)
    reader.finish()
    keys = _given_keys(credentials.settings)
    password = None if keys else _password(credentials)
    mechanism, binding = yield from _mechanism(mechanisms, credentials)
    exchange = scram.ScramExchange(binding)
    first = exchange.first()
    yield Send(
        frontend.message(b"p", frontend.text(mechanism) + struct.pack(">i", len(first)) + first)
    )
    server_first = yield from _sasl_data(state, _SASL_CONTINUE)
    exchange.take_server_first(server_first, credentials.settings.scram_max_iterations)
    if password is not None:
        keys = yield Compute(
            functools.partial(scram.keys_of_password, password, exchange.salt, exchange.iterations)
        )
    assert keys is not None
    yield Send(frontend.message(b"p", exchange.final(keys)))
    server_final = yield from _sasl_data(state, _SASL_FINAL)
    exchange.take_server_final(server_final)
    return mechanism == scram.MECHANISM_PLUS


def _given_keys(settings: AuthenticationSettings) -> scram.Keys | None:
    client, server = settings.scram_client_key, settings.scram_server_key
    if client is not None and server is not None:
        return scram.given_keys(client, server)
    if client is not None or server is not None:
        # One proves who we are and the other who the server is; a password proves both.
        raise UsageError("expected both scram_client_key and scram_server_key, got one of them")
    return None


def _mechanism(
    offered: list[str], credentials: Credentials
) -> Conversation[tuple[str, scram.ChannelBinding]]:
    """Choose among the mechanisms that the server offers, and what to say of channel binding."""
    wanted = credentials.settings.channel_binding
    offers_binding = scram.MECHANISM_PLUS in offered
    if offers_binding and not credentials.is_encrypted:
        raise AuthenticationError(
            f"expected no offer of {scram.MECHANISM_PLUS} on a connection without TLS, got one: "
            "somebody in between may have TLS with the server in our place"
        )
    if wanted == "require" and not offers_binding:
        raise _not_bound(f"it offers {_list(offered)}")
    binding = scram.NO_BINDING
    if wanted != "disable" and offers_binding:
        certificate: bytes | None = yield PeerCertificate()
        try:
            data = end_point(certificate or b"")
        except AuthenticationError as error:
            if wanted == "require":
                raise
            _log.warning("authentication is not bound to the TLS connection: %s", error)
        else:
            return scram.MECHANISM_PLUS, scram.ChannelBinding.tls_server_end_point(data)
    elif wanted != "disable" and credentials.is_encrypted:
        binding = scram.SERVER_CANNOT_BIND
    if scram.MECHANISM not in offered:
        raise AuthenticationError(
            f"expected the server to offer {scram.MECHANISM}, got {_list(offered)}"
        )
    return scram.MECHANISM, binding


def _list(mechanisms: list[str]) -> str:
    return repr([name[:40] for name in mechanisms[:5]])


def _sasl_data(state: ServerState, expected: int) -> Conversation[bytes]:
    code, reader = yield from _request(state)
    if code != expected:
        raise AuthenticationError(
            f"expected step {expected} of the SCRAM exchange, got authentication request {code}; "
            "the server must prove that it knows the password before it is trusted"
        )
    return reader.take(reader.left)


# Kerberos


def _kerberos(
    state: ServerState, reader: BodyReader, credentials: Credentials
) -> Conversation[None]:
    reader.finish()
    if not credentials.host:
        raise AuthenticationError(
            "the server asks for Kerberos (GSSAPI), which needs the server's name; give host= as "
            "well as hostaddr="
        )
    settings = credentials.settings
    context = KerberosContext(
        settings.krbsrvname, credentials.host, delegates=settings.gssdelegation
    )
    received: bytes | None = None
    while True:
        token: bytes | None = yield Compute(functools.partial(context.step, received))
        if token is not None:
            yield Send(frontend.message(b"p", token))
        if context.has_ended():
            return
        if token is None:
            raise AuthenticationError(
                "expected Kerberos to go on or to be done, got neither; the server's last message "
                "has no place here"
            )
        code, reader = yield from _request(state)
        if code != _GSS_CONTINUE:
            raise AuthenticationError(
                f"expected the next step of Kerberos, got authentication request {code}; the "
                "server must prove who it is before it is trusted"
            )
        received = reader.take(reader.left)
