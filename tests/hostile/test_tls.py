"""Before TLS: what may be said there, who is asked for it, and what its end is taken for."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pgrepl.errors import AuthenticationRejected, ConnectionFailed, TLSError, UsageError
from tests.hostile.sessions import address, assert_usable, refused
from tests.hostile.tls_sessions import (
    BEGINNING,
    REFUSAL,
    REQUIRING,
    Connect,
    answers,
    direct_context,
    direct_session,
    has_tls,
    mode,
    plain_session,
    says,
    tls_session,
)
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import Peer, Script, ScriptedServer, negotiate

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)


# Asked for


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_v18_the_server_has_no_tls(
    connect: Connect, certificates: CertificateSet, sslmode: str
) -> None:
    with ScriptedServer(answers(b"N")) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
        assert server.connections == 1
    assert type(error) is TLSError
    assert "the server does not offer TLS, which this sslmode requires" in str(error)


def test_prefer_goes_on_without_tls_on_the_same_connection(connect: Connect) -> None:
    with ScriptedServer(plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert_usable(connection)
        assert server.connections == 1


def test_disable_does_not_ask(connect: Connect, certificates: CertificateSet) -> None:
    with (
        ScriptedServer(plain_session, tls=certificates.server.server_context()) as server,
        connect(**address(server, sslmode="disable")) as connection,
    ):
        assert_usable(connection)
        assert not has_tls(connection)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["in the same segment", "a little later"])
@pytest.mark.parametrize("sslmode", REQUIRING)
def test_v1_bytes_that_are_slipped_in_before_the_handshake(
    connect: Connect, certificates: CertificateSet, sslmode: str, pause: float
) -> None:
    steps = [b"S" + BEGINNING] if pause == 0 else [b"S", pause, BEGINNING]
    with ScriptedServer(answers(*steps)) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
    assert type(error) is TLSError
    told = "expected nothing before the TLS handshake, got data" in str(error)
    assert told or (pause > 0 and "the TLS handshake with the server failed" in str(error))


def test_v1_v13_bytes_that_are_slipped_in_are_forgotten_by_the_next_attempt(
    connect: Connect,
) -> None:
    with ScriptedServer(answers(b"S" + BEGINNING), plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert connection.server_version == 180000
            assert_usable(connection)
        assert server.connections == 2


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and all that it came of."""
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_v2_what_a_server_says_before_tls_is_not_shown(
    connect: Connect,
    certificates: CertificateSet,
    sslmode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG), ScriptedServer(answers(REFUSAL)) as server:
        error = refused(connect, server, **mode(sslmode, certificates))
    assert type(error) is TLSError
    assert "with an error message, which is not shown" in str(error)
    shown = "".join(repr(each) + str(each) + str(vars(each)) for each in chain(error))
    for word in ("password", "evil", "28P01", "\x1b"):
        assert word not in shown
        assert word not in caplog.text


def test_v2_prefer_tries_again_after_a_refusal(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), ScriptedServer(answers(REFUSAL), plain_session) as server:
        with connect(**address(server, sslmode="prefer")) as connection:
            assert_usable(connection)
        assert server.connections == 2
    assert "evil" not in caplog.text


@pytest.mark.parametrize("byte", [b"s", b"n", b"G", b"R", b"\0", b"\xff", b"\x16"])
def test_an_answer_that_means_nothing(connect: Connect, byte: bytes) -> None:
    with ScriptedServer(answers(byte)) as server:
        error = refused(connect, server, sslmode="require")
    assert type(error) is TLSError
    assert f"expected the byte 'S' or 'N' in answer to the request for TLS, got {byte!r}" in str(
        error
    )


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("answer", [b"", b"S"], ids=["no answer", "after S"])
def test_the_end_of_the_connection_before_tls(
    connect: Connect, answer: bytes, end: Callable[[Peer], None]
) -> None:
    def script(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(answer)
        end(peer)

    with ScriptedServer(script) as server:
        error = refused(connect, server, sslmode="require")
    assert isinstance(error, TLSError | ConnectionFailed)
    assert "server" in str(error)


def test_the_end_of_the_connection_within_the_handshake(connect: Connect) -> None:
    cases = list(itertools.product([Peer.close, Peer.reset], range(7)))
    left = iter(cases)

    def script(peer: Peer) -> None:
        end, size = next(left)
        peer.recv_startup()
        peer.send(b"S")
        peer.recv_exactly(100)  # of the ClientHello
        peer.send(b"\x16\x03\x03\0\x50\x02"[:size])
        end(peer)

    with ScriptedServer(script) as server:
        for _ in cases:
            error = refused(connect, server, sslmode="require")
            assert isinstance(error, TLSError | ConnectionFailed)
            assert "TLS handshake" in str(error) or "failed while receiving" in str(error)
            assert error.retryable  # a server that restarts does that


def test_silence(connect: Connect) -> None:
    def falls_silent_in_the_handshake(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(b"S")
        peer.recv_exactly(100)  # of the ClientHello
        peer.send(b"\x16\x03\x03\0")
        while peer.recv_exactly(1):
            pass

    def attempt(script: Script) -> Exception:
        with ScriptedServer(script) as server:
            return refused(connect, server, sslmode="require", connect_timeout=1)

    scripts = [answers(), answers(b"S"), falls_silent_in_the_handshake]
    with ThreadPoolExecutor(len(scripts)) as pool:
        for error in pool.map(attempt, scripts):
            assert type(error) is ConnectionFailed
            assert "within connect_timeout, 1.0 s" in str(error)


def test_no_tls_at_all_behind_the_promise(connect: Connect) -> None:
    for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(100), b"\x15\x03\x01\0\2\2\x28"):
        with ScriptedServer(answers(b"S", 0.01, nonsense)) as server:
            error = refused(connect, server, sslmode="require")
        assert type(error) is TLSError
        assert "TLS" in str(error)


def test_prefer_goes_on_without_tls_where_the_certificate_will_not_do(
    connect: Connect, certificates: CertificateSet
) -> None:
    keywords = {"sslmode": "prefer", "sslrootcert": certificates.other_ca}
    context = certificates.server.server_context()
    with ScriptedServer(tls_session, plain_session, tls=context) as server:
        with connect(**address(server, **keywords)) as connection:
            assert_usable(connection)
            assert not has_tls(connection)
        assert server.connections == 2


# allow: without TLS first


def turned_away(peer: Peer) -> None:
    """A server that lets nobody in without TLS."""
    assert negotiate(peer).code >> 16 == 3
    peer.send(builders.error_response("no entry", severity="FATAL", sqlstate="28000"))


def test_allow_does_not_ask_where_it_is_let_in(
    connect: Connect, certificates: CertificateSet
) -> None:
    context = certificates.server.server_context()
    with ScriptedServer(plain_session, tls=context) as server:
        with connect(**address(server, sslmode="allow")) as connection:
            assert not has_tls(connection)
            assert_usable(connection)
        assert server.connections == 1


def test_allow_asks_where_it_is_turned_away(connect: Connect, certificates: CertificateSet) -> None:
    context = certificates.server.server_context()
    with ScriptedServer(turned_away, tls_session, tls=context) as server:
        with connect(**address(server, sslmode="allow")) as connection:
            assert has_tls(connection)
            assert_usable(connection)
        assert server.connections == 2


def test_allow_tells_of_the_server_that_turned_it_away(
    connect: Connect, certificates: CertificateSet
) -> None:
    keywords = {"sslmode": "allow", "sslrootcert": certificates.other_ca}
    context = certificates.server.server_context()
    with ScriptedServer(turned_away, tls_session, tls=context) as server:
        error = refused(connect, server, **keywords)
    assert type(error) is AuthenticationRejected
    assert "not acceptable" in "".join(error.__notes__)


# Not asked for: sslnegotiation=direct

DIRECT = {"sslnegotiation": "direct"}


@pytest.mark.parametrize("sslmode", REQUIRING)
def test_direct_tls(connect: Connect, certificates: CertificateSet, sslmode: str) -> None:
    context = direct_context(certificates.server, "http/1.1", "postgresql")
    with ScriptedServer(direct_session, tls=context) as server:
        with connect(**address(server, **DIRECT, **mode(sslmode, certificates))) as connection:
            assert has_tls(connection)
            assert_usable(connection)
        assert server.connections == 1


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
def test_direct_tls_is_for_modes_that_require_tls(connect: Connect, sslmode: str) -> None:
    with pytest.raises(UsageError, match="sslnegotiation"):
        connect(host="127.0.0.1", user="ann", sslmode=sslmode, **DIRECT)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)], ids=["none", "another"])
def test_direct_tls_with_a_server_that_does_not_agree_on_the_protocol(
    connect: Connect, certificates: CertificateSet, protocols: tuple[str, ...]
) -> None:
    context = direct_context(certificates.server, *protocols)
    with ScriptedServer(direct_session, tls=context) as server:
        error = refused(connect, server, sslmode="require", **DIRECT)
    assert server.hang_ups == 1
    assert type(error) is TLSError
    assert "expected 127.0.0.1" in str(error)
    assert "the protocol 'postgresql' (ALPN), got None: " in str(error)
    assert "needs PostgreSQL 17" in str(error)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["at once", "a little later"])
def test_v1_direct_tls_and_bytes_that_are_slipped_in(connect: Connect, pause: float) -> None:
    """Nothing may precede the handshake, and nothing that does is taken for an answer."""
    with ScriptedServer(lambda peer: says(peer, pause, BEGINNING)) as server:
        error = refused(connect, server, sslmode="require", **DIRECT)
    assert type(error) is TLSError
    told = "expected nothing before the TLS handshake, got data" in str(error)
    assert told or "the TLS handshake with the server failed: wrong version" in str(error)


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["close", "reset"])
def test_direct_tls_with_a_server_that_does_not_know_it(
    connect: Connect, end: Callable[[Peer], None]
) -> None:
    """To a server before 17 it is a packet with an absurd length."""

    def script(peer: Peer) -> None:
        peer.recv_exactly(100)
        end(peer)

    with ScriptedServer(script) as server:
        error = refused(connect, server, sslmode="require", **DIRECT)
        assert server.connections == 1
    assert type(error) is TLSError
    assert "sslnegotiation=direct needs PostgreSQL 17 or later" in str(error)
    assert not error.retryable


def test_v2_direct_tls_and_what_a_server_says_in_the_clear(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.recv_exactly(100)
        says(peer, REFUSAL)

    with ScriptedServer(script) as server:
        error = refused(connect, server, sslmode="require", **DIRECT)
    assert type(error) is TLSError
    shown = "".join(repr(each) + str(each) + str(vars(each)) for each in chain(error))
    assert "password" not in shown
    assert "evil" not in shown
