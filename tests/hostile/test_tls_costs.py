"""What a server may cost by TLS before authentication is over, an honest handshake included; see
test_costs.py."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.hostile.sessions import address
from tests.hostile.test_costs import NOTICE, assert_cheap, costs, sends
from tests.support import builders
from tests.support.authenticating import SASL
from tests.support.flavours import Flavour
from tests.support.scripted import Peer, Script, ScriptedServer

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

# TLS is the same for both twins.
pytestmark = pytest.mark.flavours("blocking-python", "asyncio-python")


def records_without_end(peer: Peer) -> None:
    """A handshake that goes on and on, in pieces of a ServerHello that is never whole."""
    peer.recv_startup()
    peer.send(b"S")
    peer.recv_exactly(100)  # of the ClientHello
    peer.send(b"\x16\x03\x03\x00\x04\x02\x00\xff\xff")
    while True:
        peer.send(b"\x16\x03\x03\x00\x01\x00" * 1000)


CASES: dict[str, tuple[Script, Callable[[ssl.SSLContext], None]]] = {
    "nothing but tickets": (
        sends(),
        lambda context: setattr(context, "num_tickets", 20_000),
    ),
    "nothing but notices": (sends(forever=NOTICE), lambda context: None),
    "nothing but requests": (sends(forever=SASL * 500), lambda context: None),
    "small notices in small records": (
        sends(forever=builders.notice_response("x")),
        lambda context: setattr(context, "maximum_version", ssl.TLSVersion.TLSv1_2),
    ),
    "a handshake without end": (records_without_end, lambda context: None),
}


def test_before_authentication_is_over(certificates: CertificateSet, flavour: Flavour) -> None:
    with contextlib.ExitStack() as stack:
        servers = []
        for script, prepare in CASES.values():
            context = certificates.server.server_context()
            prepare(context)
            servers.append(stack.enter_context(ScriptedServer(script, tls=context)))
        cases = [address(each, sslmode="require", password="pencil") for each in servers]
        found = costs(flavour, cases)
    assert_cheap(CASES, found, {"ProtocolError", "TLSError", "AuthenticationError"})
