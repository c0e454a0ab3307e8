"""Authentication without a connection: a client that waits for its server's requests, and a server
that goes through a whole exchange with it."""

from __future__ import annotations

import struct
from typing import Any, Final

from pgrepl.conninfo.parameters import AuthenticationSettings
from pgrepl.protocol.authentication import Credentials, authenticate
from pgrepl.protocol.backend import ServerState
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.dialogue import Dialogue
from tests.support.scram import MECHANISM, MECHANISM_PLUS, ScramServer

OK: Final = builders.authentication(0)
SASL: Final = builders.sasl_mechanisms(MECHANISM)
SASL_PLUS: Final = builders.sasl_mechanisms(MECHANISM_PLUS, MECHANISM)
CLEARTEXT: Final = builders.authentication(3)
MD5: Final = builders.authentication(5, b"\1\2\3\4")
GSS: Final = builders.authentication(7)
SSPI: Final = builders.authentication(9)
REJECTED: Final = builders.error_response("wrong password", severity="FATAL", sqlstate="28P01")


def authenticating(
    password: str | None = "pencil",
    user: str = "ann",
    *,
    certificate: bytes | None = None,
    is_local: bool = True,
    host: str = "",
    **settings: Any,
) -> Dialogue:
    """A client that waits for the server's request. With `certificate`, the server's, it has TLS;
    `settings` are those of `AuthenticationSettings`."""
    credentials = Credentials(
        user,
        None if password is None else Secret(password),
        AuthenticationSettings(**settings),
        host=host,
        is_encrypted=certificate is not None,
        is_local=is_local,
    )
    return Dialogue(authenticate(ServerState(), credentials), certificate=certificate)


def client_first(dialogue: Dialogue, mechanism: str = MECHANISM) -> bytes:
    """The client's first message, out of its SASLInitialResponse."""
    message = dialogue.sent[0]
    assert message[:1] == b"p"
    chosen, _, rest = message[5:].partition(b"\0")
    assert chosen == mechanism.encode()
    assert struct.unpack("!i", rest[:4]) == (len(rest) - 4,)
    return rest[4:]


def proceed(dialogue: Dialogue, server_first: bytes) -> Dialogue:
    """Hand over the server's first message."""
    return dialogue.receive(builders.authentication(11, server_first))


def finish(dialogue: Dialogue, server: ScramServer, mechanism: str = MECHANISM) -> Dialogue:
    """The server's part, up to AuthenticationOk."""
    proceed(dialogue, server.first(client_first(dialogue, mechanism)))
    return dialogue.receive(builders.authentication(12, server.final(dialogue.sent[1][5:])))
