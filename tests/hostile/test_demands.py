"""What this side demands, on the wire: a server that does not meet it hears nothing but the end.

The server chooses the method, and a hostile one the weakest. So each test has it ask for something,
and has it see that no byte of an answer comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.errors import AuthenticationError, Error
from tests.hostile.sessions import address, assert_usable, refused
from tests.hostile.sessions import answers_a_query as answers_one
from tests.support import builders
from tests.support.authenticating import CLEARTEXT, GSS, MD5, OK, SASL, SASL_PLUS, SSPI
from tests.support.flavours import DRIVERS
from tests.support.scram import MECHANISM, ScramServer
from tests.support.scripted import Peer, Script, ScriptedServer, negotiate

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*DRIVERS)

Connect = Callable[..., Any]

READY = builders.ready_for_query()
REQUESTS = {
    "nothing": OK,
    "password": CLEARTEXT,
    "md5": MD5,
    "scram-sha-256": SASL,
    "gss": GSS,
    "sspi": SSPI,
}


def asks(request: bytes) -> Script:
    """A script that asks for this, goes on as if all were well, and must hear nothing."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(request + OK + READY)
        peer.expect_hang_up()

    return script


def unanswered(
    connect: Connect, request: bytes, tls: Any = None, **keywords: Any
) -> AuthenticationError:
    """The error that a request comes to; nothing was said to it."""
    with ScriptedServer(asks(request), tls=tls) as server:
        error = refused(connect, server, **{"password": "pencil", **keywords})
        assert server.connections == 1
    assert type(error) is AuthenticationError
    assert "expected " in str(error) or "the password itself" in str(error)
    assert "pencil" not in str(error)
    return error


@pytest.mark.parametrize("name", REQUESTS)
def test_v3_channel_binding_is_required(
    connect: Connect, certificates: CertificateSet, name: str
) -> None:
    """Only SCRAM-SHA-256-PLUS meets it, with TLS or without."""
    context = certificates.server.server_context()
    with_tls = {"sslmode": "require", "channel_binding": "require"}
    error = unanswered(connect, REQUESTS[name], context, **with_tls)
    assert "channel_binding=require" in str(error) or name == "sspi"
    error = unanswered(connect, REQUESTS[name], channel_binding="require")
    assert "channel_binding=require" in str(error) or name == "sspi"


def test_v3_channel_binding_is_required_and_there_is_no_tls(connect: Connect) -> None:
    error = unanswered(connect, SASL_PLUS, channel_binding="require")
    assert "no TLS to bind to" in str(error)
    error = unanswered(connect, SASL_PLUS)
    assert "may have TLS with the server in our place" in str(error)


@pytest.mark.parametrize("name", REQUESTS)
def test_v19_a_method_is_required(connect: Connect, name: str) -> None:
    """Whatever is not in require_auth is refused, nothing at all included."""
    others = [each for each in ("password", "md5", "scram-sha-256", "gss") if each != name]
    demands = {",".join(others)}
    if name not in ("nothing", "sspi"):
        demands.add(f"!{name}")
    if name == "nothing":
        demands.add("!none")
    for demand in demands:
        unanswered(connect, REQUESTS[name], require_auth=demand)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server count as one on another machine."""
    for wing in ("blocking", "aio"):
        monkeypatch.setattr(f"pgrepl.transport.{wing}.connecting.is_local", lambda connected: False)


def test_v19_the_password_itself_goes_to_no_other_machine_in_clear(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    for sslmode in ("disable", "allow", "prefer"):
        error = unanswered(connect, CLEARTEXT, sslmode=sslmode)
        assert "allow_cleartext_password" in str(error)


def test_v13_v19_tls_with_one_host_makes_no_password_safe_with_the_next(
    connect: Connect, certificates: CertificateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)

    def starting_up(peer: Peer) -> None:
        negotiate(peer)
        peer.send(builders.error_response("later", sqlstate="57P03", severity="FATAL"))
        peer.expect_hang_up()

    context = certificates.server.server_context()
    with (
        ScriptedServer(starting_up, tls=context) as first,
        ScriptedServer(asks(CLEARTEXT)) as second,
    ):
        hosts = {"host": f"{first.host},{second.host}", "port": f"{first.port},{second.port}"}
        error = refused(connect, first, **hosts, sslmode="prefer", password="pencil")
        assert (first.connections, second.connections) == (1, 1)
    assert type(error) is AuthenticationError
    assert "allow_cleartext_password" in str(error)


def test_v22_a_session_that_begins_before_the_server_has_proved_itself(connect: Connect) -> None:
    """AuthenticationOk ends no exchange whose signature has not come, or is wrong."""

    def without(*messages: bytes) -> Script:
        def script(peer: Peer) -> None:
            negotiate(peer)
            server = ScramServer(b"pencil")
            peer.send(builders.sasl_mechanisms(MECHANISM))
            first = peer.expect(b"p").partition(b"\0")[2][4:]
            peer.send(builders.authentication(11, server.first(first)))
            peer.expect(b"p")
            peer.send(b"".join(messages) + OK + READY)
            peer.expect_hang_up()

        return script

    for messages in (
        (),
        (builders.authentication(12, b"v=" + b"A" * 43 + b"="),),
        (builders.authentication(12, b"v="),),
        (builders.authentication(12),),
        (builders.authentication(11, b"v=AAAA"),),
        (builders.notice_response("all is well"),),
    ):
        with ScriptedServer(without(*messages)) as server:
            error = refused(connect, server, password="pencil", require_auth="scram-sha-256")
        assert type(error) is AuthenticationError


def test_v18_prefer_does_not_fall_back_after_a_password_was_asked_for(
    connect: Connect, certificates: CertificateSet
) -> None:
    """A server that fails in the middle of authentication is not given it once more in clear."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(SASL_PLUS)
        peer.expect(b"p")
        peer.send(builders.authentication(11, b"r=other,s=AAAA,i=1"))
        peer.expect_hang_up()

    context = certificates.server.server_context()
    with ScriptedServer(script, tls=context) as server:
        error = refused(connect, server, sslmode="prefer", password="pencil")
        assert server.connections == 1
    assert isinstance(error, Error)


def test_what_is_demanded_and_met(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(MD5)
        peer.expect(b"p")
        peer.send(OK + READY)
        answers_one(peer)

    with (
        ScriptedServer(script) as server,
        connect(**address(server, password="pencil", require_auth="md5")) as connection,
    ):
        assert_usable(connection)


def test_v18_prefer_says_once_that_nothing_is_encrypted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To another machine; on this one nobody listens in between."""

    def script(peer: Peer) -> None:
        negotiate(peer)
        peer.send(OK + READY)
        answers_one(peer)

    def warnings_of(**keywords: Any) -> list[str]:
        caplog.clear()
        with ScriptedServer(script) as server:
            with connect(**address(server, **keywords)) as connection:
                assert_usable(connection)
            assert server.connections == 1
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert warnings_of(sslmode="prefer") == []
    monkeypatch.setattr("pgrepl.transport.attempts.is_loopback", lambda address: False)
    [warning] = warnings_of(sslmode="prefer")
    assert "is not encrypted" in warning
    assert warnings_of(sslmode="disable") == []
