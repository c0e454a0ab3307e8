"""Sessions by TLS with a scripted server, and what comes of them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgrepl.errors import TLSError
from tests.hostile.sessions import address, answers_a_query, assert_usable
from tests.support import builders
from tests.support.inside import transport_of
from tests.support.scripted import SSL_REQUEST, Peer, Script, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateFiles, CertificateSet

Connect = Callable[..., Any]

REQUIRING = ["require", "verify-ca", "verify-full"]

# A whole start of a session, to be slipped in where none belongs.
BEGINNING = (
    builders.authentication(0)
    + builders.parameter_status("server_version", "6.6.6")
    + builders.ready_for_query()
)

REFUSAL = builders.error_response(
    "\x1b[2JYour password: ", severity="FATAL", sqlstate="28P01", hint="enter it on evil.invalid"
)

FINE, REFUSED = "fine", "refused"


def mode(sslmode: str, certificates: CertificateSet | None = None) -> dict[str, Any]:
    """Keywords for this mode; the root certificate is given where the mode needs one."""
    keywords: dict[str, Any] = {"sslmode": sslmode}
    if certificates is not None and sslmode.startswith("verify"):
        keywords["sslrootcert"] = certificates.ca
    return keywords


def answers(*steps: bytes | float) -> Script:
    """A script that answers a request for TLS with these bytes, with a pause where a number is."""

    def script(peer: Peer) -> None:
        assert peer.recv_startup().code == SSL_REQUEST
        says(peer, *steps)

    return script


def says(peer: Peer, *steps: bytes | float) -> None:
    """Send this, and wait until the client hangs up."""
    for step in steps:
        if isinstance(step, bytes):
            peer.send(step)
        else:
            time.sleep(step)
    while peer.recv_exactly(1):
        pass


def plain_session(peer: Peer) -> None:
    """A session of a client that does not ask for TLS."""
    startup = handshake(peer)
    assert startup.parameters["user"] == "ann"
    answers_a_query(peer)


def tls_session(peer: Peer) -> None:
    """A session with TLS where the client asks for it."""
    handshake(peer)
    answers_a_query(peer)


def direct_session(peer: Peer) -> None:
    """A session with TLS from the first byte."""
    peer.start_tls()
    tls_session(peer)


def direct_context(certificate: CertificateFiles, *protocols: str) -> ssl.SSLContext:
    """A server's side of TLS that chooses among these protocols (ALPN)."""
    context = certificate.server_context()
    context.set_alpn_protocols(list(protocols))
    return context


def has_tls(connection: Any) -> bool:
    """Whether everything on this connection is encrypted."""
    return bool(transport_of(connection).has_tls)


def verdict(connect: Connect, certificate: CertificateFiles, **keywords: Any) -> str:
    """Whether a session comes about with a server that presents this certificate."""
    return judged(connect, certificate.server_context(), **keywords)


def judged(connect: Connect, context: ssl.SSLContext, **keywords: Any) -> str:
    """Whether a session comes about with a server that has this side of TLS; where it does not, it
    must be the certificate's fault."""
    with ScriptedServer(tls_session, tls=context) as server:
        try:
            connection = connect(**address(server, **keywords))
        except TLSError as error:
            assert "the server's certificate is not acceptable: " in str(error)
            return REFUSED
        with connection:
            assert has_tls(connection)
            assert_usable(connection)
        return FINE
